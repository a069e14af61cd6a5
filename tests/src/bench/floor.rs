//! What no knock can do without, each alone: the steps whose sum is the least that knock to open port could take here.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use spa_tests::short::full_or;

use super::report::Row;
use super::x25519;

const BENCH: &str = "floor of knock to open port";
const SAMPLES: u32 = 100;
/// Between two: the processor has gone to sleep meanwhile, as on a quiet server.
const PAUSE: Duration = Duration::from_millis(5);
/// Bytes of the replay record's frame of one knock: two records with their header.
const FRAME: usize = 88;
/// The verifier, the warden's main thread, the engine.
const WAKE_UPS: f64 = 3.0;

/// One Diffie-Hellman, one wake-up, one write to a disk.
pub fn rows() -> Vec<Row> {
    let wakes = wake_ups();
    let median = super::spread(wakes.clone()).map_or(0.0, |[_, median, _, _]| median);
    let mut rows = Row::spread(BENCH, "wake-up of a sleeping thread", wakes, "ms");
    for limit in x25519::both() {
        let alone = limit.seconds * 1e3;
        let sum = format!("{} and three wake-ups", limit.whose);
        rows.push(Row::new(BENCH, limit.whose, "CPU", alone, "ms"));
        rows.push(Row::new(BENCH, &sum, "sum", alone + WAKE_UPS * median, "ms"));
    }
    let disk =
        "fdatasync on the disk of the temporary directory; the bench's server keeps its state on a tmpfs";
    rows.extend(Row::spread(BENCH, disk, fdatasyncs(), "ms"));
    rows
}

/// From the write to when the reader, which slept, runs.
fn wake_ups() -> Vec<f64> {
    let (mut ours, mut theirs) = UnixStream::pair().expect("a pair of sockets");
    let (sender, woken) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        while theirs.read(&mut [0]).is_ok_and(|length| length == 1) {
            let _ = sender.send(Instant::now()); // the other side waits for it
        }
    });
    let mut took = Vec::new();
    for _ in 0..full_or(SAMPLES, 10) {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        ours.write_all(&[0]).expect("the reader lives");
        let woken = woken.recv().expect("the reader lives");
        took.push(woken.saturating_duration_since(began).as_secs_f64() * 1e3);
    }
    drop(ours);
    reader.join().expect("the reader ends");
    took
}

fn fdatasyncs() -> Vec<f64> {
    let path = std::env::temp_dir().join(format!("spa-bench-{}-fdatasync", std::process::id()));
    let mut file = File::create_new(&path).expect("a file in the temporary directory");
    let mut append = |_| {
        std::thread::sleep(PAUSE);
        let began = Instant::now();
        file.write_all(&[0; FRAME]).and_then(|()| file.sync_data()).expect("a disk with room");
        began.elapsed().as_secs_f64() * 1e3
    };
    let took = (0..full_or(SAMPLES, 10)).map(&mut append).collect();
    std::fs::remove_file(&path).expect("it is ours");
    took
}
