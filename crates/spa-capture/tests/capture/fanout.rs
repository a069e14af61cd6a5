//! Several captures that share the datagrams of a port.

use std::time::{Duration, Instant};

use spa_capture::{Capture, CaptureError, Family, Fanout, Method};

use crate::net::{Wire, capture, for_each_method, network};
use crate::packets::PORT;

for_each_method!(each_datagram_comes_to_one, a_group_is_of_one_family);

const CAPTURES: usize = 4;
const DATAGRAMS: usize = 800;

/// A group as the daemon makes it, in other hands as in the verifier.
fn group(method: Method, family: Family) -> Vec<Capture> {
    let mut fanout = Fanout::default();
    let joined = (0..CAPTURES).map(|_| {
        let capture = capture(method, family);
        capture.join(&mut fanout).unwrap();
        Capture::from_fd(capture.into_fd(), family, PORT, None).unwrap()
    });
    joined.collect()
}

/// How many each had.
fn receive_all(captures: &mut [Capture], wanted: usize) -> Vec<usize> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut counts = vec![0; captures.len()];
    while counts.iter().sum::<usize>() < wanted {
        assert!(Instant::now() < deadline, "{counts:?} came of {wanted}");
        for (capture, count) in captures.iter_mut().zip(&mut counts) {
            *count += capture.receive(&mut |_| {}).unwrap().accepted;
        }
    }
    counts
}

fn each_datagram_comes_to_one(method: Method) {
    network();
    // A second group of the same family is a group of its own, as two daemons or a reload have it.
    let groups = [Family::V4, Family::V6, Family::V4].map(|family| (family, group(method, family)));
    let wire = Wire::new();
    let others = |family: Family| groups.iter().filter(|(of, _)| *of == family).count();
    assert_eq!((others(Family::V4), others(Family::V6)), (2, 1));
    for family in [Family::V4, Family::V6] {
        (0..DATAGRAMS).for_each(|_| wire.right(family, 1)); // one flow
    }
    for (family, mut captures) in groups {
        let counts = receive_all(&mut captures, DATAGRAMS);
        // At random: less than half of its share comes to one of them once in 10^20 runs.
        assert!(counts.iter().all(|count| *count > DATAGRAMS / CAPTURES / 2), "{family}: {counts:?}");
        for capture in &mut captures {
            assert_eq!(capture.receive(&mut |_| {}).unwrap().accepted, 0, "{family}: none comes twice");
            assert_eq!(capture.drops().unwrap(), 0);
        }
    }
}

fn a_group_is_of_one_family(method: Method) {
    let mut fanout = Fanout::default();
    let first = capture(method, Family::V4);
    first.join(&mut fanout).unwrap();
    let error = capture(method, Family::V6).join(&mut fanout).unwrap_err();
    assert!(
        matches!(error, CaptureError::Fanout(_)) && error.to_string().contains("capture-threads = 1"),
        "{error}"
    );
}
