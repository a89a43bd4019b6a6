//! DNS over TCP: one task for each connection, which answers one query after the other.
//!
//! hickory's own listener accepts every connection, and a thousand connections would leave the
//! daemon without descriptors.

use std::{io, net::SocketAddr, sync::Arc};

use axum::serve::Listener;
use hickory_server::{
    net::{NetError, runtime::TokioTime, xfer::Protocol},
    proto::{op::MessageType, rr::Record, serialize::binary::BinEncoder},
    server::{Request, RequestHandler, ResponseHandler, ResponseInfo},
    zone_handler::MessageResponse,
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use super::Handler;
use crate::connections::{Bounded, LimitedConnection};

/// The number of bytes in which a query's identifier, flags and counts are complete.
const HEADER: usize = 12;

/// Answers until the future is dropped, which ends all connections.
pub(super) async fn serve(mut listener: Bounded<TcpListener>, handler: Handler) {
    let mut tasks = JoinSet::new();
    loop {
        let (stream, address) = listener.accept().await;
        if !handler.admits(address.ip()) {
            continue;
        }
        let handler = handler.clone();
        tasks.spawn(async move {
            if let Err(error) = talk(stream, address, &handler).await {
                tracing::debug!(%address, %error, "a DNS connection has ended");
            }
        });
        // A JoinSet keeps the results of ended tasks until they are taken.
        while tasks.try_join_next().is_some() {}
    }
}

async fn talk(
    mut stream: LimitedConnection<TcpStream>,
    address: SocketAddr,
    handler: &Handler,
) -> io::Result<()> {
    let life = Arc::clone(stream.life());
    loop {
        let mut length = [0; 2];
        // RFC 1035, 4.2.2: a message over TCP has its length before it.
        stream.read_exact(&mut length).await?;
        let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut question).await?;

        // One whole query proves the connection.
        life.prove();
        let under_way = life.start_request();
        let answered = tokio::select! {
            answered = answer(question, address, handler) => answered,
            () = life.closed() => return Ok(()),
        };
        let Some(answered) = answered else {
            return Ok(());
        };

        let length = u16::try_from(answered.len()).map_err(io::Error::other)?;
        // One write: with two, the second would wait for the acknowledgement of the first.
        stream
            .write_all(&[&length.to_be_bytes(), answered.as_slice()].concat())
            .await?;
        drop(under_way);
    }
}

/// The answer to one query; `None` if there is no answer.
async fn answer(question: Vec<u8>, address: SocketAddr, handler: &Handler) -> Option<Vec<u8>> {
    let malformed = malformed(&question);
    let Ok(request) = Request::from_bytes(question, address, Protocol::Tcp) else {
        return malformed;
    };
    // Two servers that answered each other's answers would never end.
    if request.metadata.message_type == MessageType::Response {
        return None;
    }

    let answer = AnswerSlot::default();
    handler
        .handle_request::<_, TokioTime>(&request, answer.clone())
        .await;
    answer.0.lock().take()
}

/// "Format error", with the identifier, the operation and "recursion desired" of the query (RFC
/// 1035, 4.1.1).
fn malformed(question: &[u8]) -> Option<Vec<u8>> {
    let [first, second, flags, ..] = *question.get(..HEADER)? else {
        return None;
    };
    let (response, kept, format_error) = (0x80, 0x79, 1);
    if flags & response != 0 {
        return None;
    }

    let mut answer = vec![0; HEADER];
    answer[..4].copy_from_slice(&[first, second, response | flags & kept, format_error]);
    Some(answer)
}

/// Receives the answer from the handler.
#[derive(Clone, Default)]
struct AnswerSlot(Arc<Mutex<Option<Vec<u8>>>>);

#[async_trait::async_trait]
impl ResponseHandler for AnswerSlot {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::with_capacity(512);
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(u16::MAX);
        let info = response.destructive_emit(&mut encoder)?;
        *self.0.lock() = Some(bytes);
        Ok(info)
    }
}

#[cfg(test)]
mod fuzz;
