//! Foreign bytes for a parser: the files of a corpus as they are, then the same files mutated, for
//! a bounded time.
//!
//! The unit tests of every package include this file; each parser has a `fuzz.rs` with its
//! properties, and a `corpus/` of real inputs, beside it. Mutations come from proptest in batches,
//! and the number of a batch is its seed, so that every run of the gate tries the same inputs
//! first.
//!
//! ```sh
//! cargo test fuzz                                       # 0.3 s for each parser
//! WINDLASS_FUZZ_SECONDS=3600 cargo test fuzz            # an hour for each parser
//! WINDLASS_FUZZ_SEED=123 cargo test source::commit      # begins with batch 123
//! ```
//!
//! There is no coverage guidance, which needs a nightly compiler. What finds faults here is to cut,
//! join and repeat real inputs, and to put the words of the format into them.

use std::{
    fs,
    io::Write,
    path::Path,
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use proptest::{
    prelude::*,
    sample::Index,
    test_runner::{Config, RngAlgorithm, TestCaseResult, TestError, TestRng, TestRunner},
};

/// How long the mutations of one parser take where `WINDLASS_FUZZ_SECONDS` is not set.
const DEFAULT_TIME: Duration = Duration::from_millis(300);
/// The number of inputs in a batch; the clock is read between batches.
const BATCH: u32 = 64;
/// The longest input that a mutation makes, unless its file of the corpus is longer.
const MOST_BYTES: usize = 16 * 1024;
/// An input that a parser reads for longer than this, three times in a row, is a fault.
const SLOW: Duration = Duration::from_secs(1);
/// An input that a parser reads for longer than this ends the whole test process.
const ENDLESS: Duration = Duration::from_secs(60);

/// One parser's inputs.
pub(crate) struct Fuzz {
    corpus: &'static str,
    /// Real inputs with their names; a target may convert them into the form that its parser reads.
    pub(crate) seeds: Vec<(String, Vec<u8>)>,
    words: Vec<Vec<u8>>,
}

impl Fuzz {
    /// Reads a corpus. `corpus` is its directory relative to the package's `Cargo.toml`, and
    /// `words` are words that have a meaning in the format.
    pub(crate) fn new(corpus: &'static str, words: &[&'static str]) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(corpus);
        let entries = fs::read_dir(&directory).expect("a directory with a corpus");
        let mut seeds: Vec<(String, Vec<u8>)> = entries
            .map(|entry| {
                let entry = entry.expect("an entry of the corpus");
                let name = entry.file_name().to_string_lossy().into_owned();
                (name, fs::read(entry.path()).expect("a readable file"))
            })
            .collect();
        seeds.sort();
        let words = words.iter().map(|word| word.as_bytes().to_vec()).collect();
        Self {
            corpus,
            seeds,
            words,
        }
    }

    /// Checks the properties of `target`, first with the corpus, then with mutations of the corpus.
    /// The target returns whether the parser accepted the input; a corpus must contain inputs that
    /// are accepted and inputs that are refused.
    pub(crate) fn run(&self, target: impl Fn(&[u8]) -> Result<bool, TestCaseError>) {
        let watch = Watch::start(self.corpus);
        let checked = |bytes: &[u8]| watch.over(bytes, &target);
        let (mut accepted, mut refused) = (0, 0);
        for (name, bytes) in &self.seeds {
            // Where the target panics, this line names the input that made it panic.
            eprintln!("{}/{name}", self.corpus);
            match checked(bytes) {
                Ok(true) => accepted += 1,
                Ok(false) => refused += 1,
                Err(why) => panic!("{}/{name}: {why}", self.corpus),
            }
        }
        assert!(
            accepted > 0 && refused > 0,
            "{}: {accepted} inputs are accepted and {refused} are refused; \
             the corpus needs at least one of each",
            self.corpus
        );

        let inputs = self.mutated();
        let first = number("WINDLASS_FUZZ_SEED").unwrap_or(0);
        let time = number("WINDLASS_FUZZ_SECONDS").map_or(DEFAULT_TIME, Duration::from_secs);
        let end = Instant::now() + time;
        let mut batch = first;
        while Instant::now() < end {
            let test = |input: Vec<u8>| -> TestCaseResult { checked(&input).map(drop) };
            if let Err(TestError::Fail(why, input)) = runner(batch).run(&inputs, test) {
                panic!("{}", self.report(batch, &why.to_string(), &input));
            }
            batch += 1;
        }
        eprintln!("{}: batches {first} to {batch} of {BATCH}", self.corpus);
    }

    fn report(&self, batch: u64, why: &str, input: &[u8]) -> String {
        let corpus = self.corpus;
        format!(
            "{why}\n\
             input of {} bytes: b\"{}\"\n\
             seed: WINDLASS_FUZZ_SEED={batch}\n\
             correct the parser, and add the input to {corpus} under a name that describes it",
            input.len(),
            input.escape_ascii()
        )
    }

    /// One of the seeds, changed in a few places. proptest shrinks such an input to fewer and
    /// smaller changes.
    fn mutated(&self) -> impl Strategy<Value = Vec<u8>> {
        let seeds: Arc<[Vec<u8>]> = self.seeds.iter().map(|(_, bytes)| bytes.clone()).collect();
        let changes = prop::collection::vec(change(self.words.clone()), 1..8);
        (any::<Index>(), changes).prop_map(move |(seed, changes)| {
            let mut bytes = seeds[seed.index(seeds.len())].clone();
            let longest = bytes.len().max(MOST_BYTES);
            for change in changes {
                change.apply(&mut bytes, &seeds);
                bytes.truncate(longest);
            }
            bytes
        })
    }
}

fn runner(batch: u64) -> TestRunner {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&batch.to_le_bytes());
    let config = Config {
        cases: BATCH,
        failure_persistence: None,
        max_shrink_iters: 4000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed))
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    let number = text.parse();
    Some(number.unwrap_or_else(|_| panic!("{variable} is {text:?}: write a whole number")))
}

/// One change of an input. A place beyond the end of the input means its end.
#[derive(Clone, Debug)]
enum Change {
    FlipBit(Index, u8),
    /// Inserts some bytes, or replaces as many bytes by them where the flag is set.
    Put(Index, Vec<u8>, bool),
    Delete(Index, usize),
    Truncate(Index),
    /// Repeats some bytes several times.
    Repeat(Index, usize, usize),
    /// Copies a part of the input to another place.
    Copy(Index, usize, Index),
    /// Replaces the rest of the input by the end of another seed.
    Splice(Index, Index, Index),
}

fn change(words: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    // Bytes with a meaning in many formats are chosen more often than by chance.
    let odd =
        prop::sample::select(b"\0\x01\x7f\x80\xff\n\r\t \"'\\/,:;=-.0129aA!*?&#%<>[]{}".to_vec());
    let bytes = prop::collection::vec(prop_oneof![odd, any::<u8>()], 1..5);
    let piece = prop_oneof![bytes, prop::sample::select(words)];
    let length = || prop_oneof![4 => 1_usize..8, 1 => 1_usize..200];
    prop_oneof![
        3 => (place(), 0_u8..8).prop_map(|(at, bit)| Change::FlipBit(at, bit)),
        8 => (place(), piece, any::<bool>())
            .prop_map(|(at, piece, replaces)| Change::Put(at, piece, replaces)),
        3 => (place(), length()).prop_map(|(at, length)| Change::Delete(at, length)),
        1 => place().prop_map(Change::Truncate),
        1 => (place(), length(), prop_oneof![9 => 1_usize..8, 1 => 1_usize..2000])
            .prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        2 => (place(), length(), place()).prop_map(|(from, length, to)| Change::Copy(from, length, to)),
        2 => (place(), place(), place()).prop_map(|(at, seed, from)| Change::Splice(at, seed, from)),
    ]
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        // The end of the input is a place too, hence the 1.
        let within = |at: Index| at.index(bytes.len() + 1);
        let piece = |from: usize, length: usize| {
            let end = (from + length).min(bytes.len());
            bytes[from..end].to_vec()
        };
        match self {
            Self::FlipBit(at, bit) => {
                let at = within(at);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            Self::Put(at, piece, replaces) => {
                let at = within(at);
                let replaced = if replaces { piece.len() } else { 0 };
                bytes.splice(at..(at + replaced).min(bytes.len()), piece);
            }
            Self::Delete(at, length) => {
                let at = within(at);
                let end = (at + length).min(bytes.len());
                bytes.drain(at..end);
            }
            Self::Truncate(at) => {
                let at = within(at);
                bytes.truncate(at);
            }
            Self::Repeat(at, length, times) => {
                let at = within(at);
                let repeated = piece(at, length).repeat(times.min(MOST_BYTES / length));
                bytes.splice(at..at, repeated);
            }
            Self::Copy(from, length, to) => {
                let (copied, to) = (piece(within(from), length), within(to));
                bytes.splice(to..to, copied);
            }
            Self::Splice(at, seed, from) => {
                let other = &seeds[seed.index(seeds.len())];
                let at = within(at);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
    }
}

/// The input that a target reads now, and since when.
type Current = Option<(Instant, Vec<u8>)>;

/// Ends the test process where a target does not return.
struct Watch {
    current: Arc<Mutex<Current>>,
    /// The watching thread ends when this sender is dropped.
    _running: mpsc::Sender<()>,
}

impl Watch {
    fn start(corpus: &'static str) -> Self {
        let current: Arc<Mutex<Current>> = Arc::default();
        let (running, ended) = mpsc::channel::<()>();
        let watched = Arc::clone(&current);
        thread::spawn(move || {
            while ended.recv_timeout(Duration::from_secs(1)) == Err(mpsc::RecvTimeoutError::Timeout)
            {
                let current = watched.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some((since, input)) = current.as_ref()
                    && since.elapsed() > ENDLESS
                {
                    // `eprintln!` would be captured, and lost with the aborted process.
                    let text = input.escape_ascii();
                    let _ = writeln!(std::io::stderr(), "{corpus}: endless with b\"{text}\"");
                    std::process::abort();
                }
            }
        });
        Self {
            current,
            _running: running,
        }
    }

    /// Calls the target and measures how long it takes.
    fn over(
        &self,
        bytes: &[u8],
        target: &impl Fn(&[u8]) -> Result<bool, TestCaseError>,
    ) -> Result<bool, TestCaseError> {
        // On a busy machine any call may take a second once.
        let mut tries = 3;
        loop {
            let since = Instant::now();
            self.set(Some((since, bytes.to_vec())));
            let result = target(bytes)?;
            self.set(None);
            tries -= 1;
            if since.elapsed() <= SLOW {
                return Ok(result);
            }
            prop_assert!(tries > 0, "this input takes {:?}", since.elapsed());
        }
    }

    fn set(&self, current: Option<(Instant, Vec<u8>)>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }
}
