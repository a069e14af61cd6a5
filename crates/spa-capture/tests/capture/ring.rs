//! What a ring can get wrong: packets that stay in it, come twice, or are lost when its reader changes.

use spa_capture::{BATCH, Capture, Family, Interfaces, Method, RING_BYTES};
use spa_tests::{in_namespace, sh};

use crate::net::{LAST, Wire, capture, for_each_method, network, receive, receive_last};
use crate::packets::PORT;

for_each_method!(a_flood_leaves_nothing_behind, many_laps_lose_nothing);

/// More packets than a ring holds.
const TOO_MANY: usize = RING_BYTES / 768;

/// Bursts of many lengths: after each the reader sleeps until the kernel wakes it, so that one packet that stayed
/// unseen would show.
fn a_flood_leaves_nothing_behind(method: Method) {
    network();
    let mut captures = [Family::V4, Family::V6].map(|family| (family, capture(method, family)));
    let wire = Wire::new();
    for length in (1..=BATCH + 1).chain([1, 200, 1, 2, 500, 1]) {
        for (family, capture) in &mut captures {
            (1..length).for_each(|_| wire.right(*family, 1));
            wire.right(*family, LAST);
            let marks = receive_last(capture);
            assert_eq!(marks.len(), length, "each once");
            assert_eq!(marks.last(), Some(&LAST), "in order");
        }
    }
    for (family, capture) in &mut captures {
        assert_eq!(capture.drops().unwrap(), 0, "{family}");
        assert_eq!(capture.receive(&mut |_| {}).unwrap().accepted, 0);
    }
}

fn many_laps_lose_nothing(method: Method) {
    network();
    let mut capture = capture(method, Family::V4);
    let wire = Wire::new();
    let mut mark = 0_u8;
    for _ in 0..3 * TOO_MANY / 500 {
        let expected: Vec<u8> = (0..500_u32).map(|step| mark.wrapping_add(step as u8)).collect();
        expected.iter().for_each(|mark| wire.right(Family::V4, *mark));
        assert_eq!(receive(&mut capture, |seen| seen.marks.len() >= 500).marks, expected);
        mark = mark.wrapping_add(77);
    }
    assert_eq!(capture.drops().unwrap(), 0);
}

/// As when a verifier ends and another takes the socket over.
fn another_reader(capture: Capture) -> Capture {
    let another = Capture::from_fd(capture.into_fd(), Family::V4, PORT, None).unwrap();
    assert_eq!(another.method(), Method::Ring);
    another
}

#[test]
fn another_reader_goes_on_where_the_first_was() {
    in_namespace(|| {
        network();
        let mut capture = capture(Method::Ring, Family::V4);
        let wire = Wire::new();
        for _ in 0..40 {
            (0..BATCH as u8 + 5).for_each(|mark| wire.right(Family::V4, mark));
            assert_eq!(capture.receive(&mut |_| {}).unwrap().accepted, BATCH);
            capture = another_reader(capture);
            wire.right(Family::V4, LAST);
            let rest: Vec<u8> = (BATCH as u8..BATCH as u8 + 5).chain([LAST]).collect();
            assert_eq!(receive_last(&mut capture), rest);
            // And from an empty ring, of which nothing shows where the kernel will write.
            capture = another_reader(capture);
            wire.right(Family::V4, LAST);
            assert_eq!(receive_last(&mut capture), [LAST]);
        }
    });
}

#[test]
fn another_reader_takes_over_a_full_ring() {
    in_namespace(|| {
        network();
        let mut capture = capture(Method::Ring, Family::V4);
        let wire = Wire::new();
        (0..100).for_each(|_| wire.right(Family::V4, 1));
        assert_eq!(receive(&mut capture, |seen| seen.marks.len() == 100).refused, 0);
        (0..TOO_MANY).for_each(|_| wire.right(Family::V4, 2));
        let held = TOO_MANY - usize::try_from(capture.drops().unwrap()).unwrap();
        assert!(held < TOO_MANY, "it is full");
        let mut capture = another_reader(capture);
        assert_eq!(receive(&mut capture, |seen| seen.marks.len() == held).refused, 0);
        for _ in 0..2 {
            wire.right(Family::V4, LAST);
            assert_eq!(receive_last(&mut capture), [LAST]);
        }
    });
}

/// Limits the address space of this process to what it has now and `more` bytes.
fn limit_memory(more: u64) {
    let pages = sh("cat /proc/$PPID/statm");
    let pages: u64 = pages.split(' ').next().unwrap().parse().unwrap();
    let limit = pages * rustix::param::page_size() as u64 + more;
    let limit = libc::rlimit { rlim_cur: limit, rlim_max: limit };
    // SAFETY: the kernel reads one rlimit.
    assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_AS, &raw const limit) }, 0);
}

#[test]
fn without_memory_for_a_ring_calls_do_it() {
    in_namespace(|| {
        network();
        let wire = Wire::new();
        limit_memory(RING_BYTES as u64 / 2);
        let mut capture = Capture::open(Family::V4, PORT, &Interfaces::all()).unwrap();
        assert_eq!(capture.method(), Method::Calls);
        assert_eq!(capture.ring_refused().unwrap().raw_os_error(), Some(libc::ENOMEM));
        wire.right(Family::V4, LAST);
        assert_eq!(receive_last(&mut capture), [LAST]);
    });
}

#[test]
fn a_ring_is_what_is_tried_first() {
    in_namespace(|| {
        let capture = Capture::open(Family::V6, PORT, &Interfaces::all()).unwrap();
        assert_eq!((capture.method(), capture.ring_refused().is_none()), (Method::Ring, true));
    });
}

/// The mapping is gone with the capture, and with giving its descriptor away.
#[test]
fn nothing_of_the_ring_stays_mapped() {
    in_namespace(|| {
        let maps = || sh("cat /proc/$PPID/maps").lines().filter(|line| line.contains("socket:")).count();
        let capture = capture(Method::Ring, Family::V4);
        assert_eq!(maps(), 1);
        let fd = capture.into_fd();
        assert_eq!(maps(), 0);
        drop(Capture::from_fd(fd, Family::V4, PORT, None).unwrap());
        assert_eq!(maps(), 0);
    });
}
