//! Unix sockets: they have their mode before any client can connect, and are never taken from a
//! running daemon.

use std::{
    fs, io,
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
};

use thiserror::Error;
use tokio::net::UnixListener;

/// Why a socket cannot be served.
#[derive(Debug, Error)]
pub(crate) enum SocketError {
    /// A daemon answers on the socket.
    #[error(
        "another daemon answers at {0}: stop that daemon first, or start this one with another --socket-dir"
    )]
    Taken(PathBuf),
    /// An operation on the socket failed.
    #[error("cannot {action} {path}")]
    Io {
        /// The operation, as a verb with its preposition.
        action: &'static str,
        /// The path of the socket.
        path: PathBuf,
        source: io::Error,
    },
}

/// Binds `path` with this mode. The socket of a dead daemon is replaced.
///
/// The socket is bound in a directory that only the daemon's user can enter, receives its mode, and
/// is then renamed into place: no client can connect while the mode is still that of the umask, and
/// at no moment is there no socket.
pub(super) fn bind(path: &Path, mode: u32) -> Result<UnixListener, SocketError> {
    let failed = |action: &'static str, path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| SocketError::Io {
            action,
            path,
            source,
        }
    };
    refuse_living(path)?;

    let parent = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(parent).map_err(failed("create the directory", parent))?;
    let private = tempfile::Builder::new()
        .prefix(".new-")
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(parent)
        .map_err(failed("create a directory in", parent))?;

    let fresh = private.path().join("s");
    let listener = UnixListener::bind(&fresh).map_err(failed("listen at", path))?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(mode))
        .map_err(failed("set the mode of", path))?;
    fs::rename(&fresh, path).map_err(failed("rename a new socket to", path))?;
    Ok(listener)
}

fn refuse_living(path: &Path) -> Result<(), SocketError> {
    match UnixStream::connect(path) {
        Ok(_) => Err(SocketError::Taken(path.to_owned())),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(())
        }
        Err(source) => Err(SocketError::Io {
            action: "connect to",
            path: path.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test")]
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_living_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/admin.sock");
        let first = bind(&path, 0o600).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let message = bind(&path, 0o600).unwrap_err().to_string();
        assert!(
            message.starts_with("another daemon answers at "),
            "{message}"
        );
        drop(first);
        let second = bind(&path, 0o660).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o660
        );
        drop(second);
        let left: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the socket is left");
    }
}
