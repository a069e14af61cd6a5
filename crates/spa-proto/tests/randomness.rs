//! Without the cloak key a packet looks random: statistics of 10,000 packets, the same each time.
#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use common::{Generator, Pair};
use spa_proto::{Action, Address, Knock, MAX_PACKET, MIN_PACKET, Request, Requests, SecretKey};

const PACKETS: u64 = 10_000;
/// How far, in standard deviations, a statistic may be from what randomness gives. Of the 2,304 statistics taken,
/// a worse one would come by chance in one of some hundred runs; with the fixed seed it does not.
const DEVIATIONS: f64 = 5.0;

/// How often each value of a byte came, by the byte's position.
struct Counts(Vec<[u32; 256]>);

impl Counts {
    fn new(positions: usize) -> Self {
        Self(vec![[0; 256]; positions])
    }

    fn add(&mut self, bytes: &[u8]) {
        self.0.iter_mut().zip(bytes).for_each(|(counts, byte)| counts[usize::from(*byte)] += 1);
    }

    /// The chi-square statistic of one position, in standard deviations from its mean.
    fn byte_deviation(&self, position: usize) -> f64 {
        deviation(&self.0[position])
    }

    /// The share of ones of one bit, in standard deviations from a half.
    fn bit_deviation(&self, position: usize, bit: u32) -> f64 {
        let counts = &self.0[position];
        let all: u32 = counts.iter().sum();
        let ones: u32 =
            counts.iter().enumerate().filter(|(value, _)| value >> bit & 1 == 1).map(|(_, n)| n).sum();
        (f64::from(ones) - f64::from(all) / 2.0) / (f64::from(all).sqrt() / 2.0)
    }

    /// The worst of all statistics.
    fn worst(&self) -> f64 {
        (0..self.0.len())
            .flat_map(|at| {
                (0..8).map(move |bit| self.bit_deviation(at, bit)).chain([self.byte_deviation(at)])
            })
            .fold(0.0, |worst: f64, deviation| worst.max(deviation.abs()))
    }
}

/// Chi-square against an even spread, in standard deviations from its mean (it has n - 1 degrees of freedom, so the
/// mean n - 1 and the variance 2 (n - 1)).
fn deviation(counts: &[u32]) -> f64 {
    let all: u32 = counts.iter().sum();
    let expected = f64::from(all) / counts.len() as f64;
    let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    let freedom = (counts.len() - 1) as f64;
    (chi_square - freedom) / (2.0 * freedom).sqrt()
}

fn knock(index: u64, long: bool) -> Knock {
    let names = if long { 0..8 } else { 0..1 };
    let requests =
        names.map(|i| Request::Service(format!("a-service-with-a-long-name-{i:05}").parse().unwrap()));
    Knock {
        action: Action::Open { requests: Requests::new(requests).unwrap(), seconds: 30 },
        address: Address::Observed,
        counter: 1_766_361_600_000_000_000 + index,
    }
}

/// The same client asks the same thing in the same second, again and again.
#[test]
fn packets_look_random_in_every_byte_and_bit_and_in_length() {
    let pair = Pair::new(1);
    let mut generator = Generator(2);
    let mut packets = Counts::new(MIN_PACKET);
    let mut raw_keys = Counts::new(32);
    let mut lengths = [0; MAX_PACKET - MIN_PACKET + 1];
    for index in 0..PACKETS {
        let packet = pair.sealer.seal(&knock(index, false), &generator.randomness());
        if index % 1000 == 0 {
            assert_eq!(pair.serve(&packet), Some(knock(index, false)));
        }
        packets.add(&packet);
        lengths[packet.len() - MIN_PACKET] += 1;
        raw_keys.add(&pair.cloak.open(&packet).unwrap().ephemeral());
    }
    assert!(packets.worst() < DEVIATIONS, "{}", packets.worst());
    assert!(deviation(&lengths).abs() < DEVIATIONS, "{}", deviation(&lengths));

    // The same statistics tell a raw X25519 key, which is what the mask hides: its top bit is never set.
    assert!(raw_keys.bit_deviation(31, 7) < -90.0);
    assert!(raw_keys.byte_deviation(31) > 90.0);
    assert!(raw_keys.worst() > DEVIATIONS);
}

#[test]
fn long_content_has_its_own_even_spread_of_lengths() {
    const LEAST: usize = 432;
    let pair = Pair::new(3);
    let mut generator = Generator(4);
    let mut lengths = [0; MAX_PACKET - LEAST + 1];
    for index in 0..PACKETS / 2 {
        lengths[pair.sealer.seal(&knock(index, true), &generator.randomness()).len() - LEAST] += 1;
    }
    assert!(deviation(&lengths).abs() < DEVIATIONS, "{}", deviation(&lengths));
    assert!(lengths[0] > 0 && lengths[MAX_PACKET - LEAST] > 0);
}

/// The statistic itself: it takes random bytes for random, and public keys for what they are.
#[test]
fn the_statistic_tells_public_keys_from_random_bytes() {
    let mut generator = Generator(5);
    let (mut random, mut keys) = (Counts::new(32), Counts::new(32));
    for _ in 0..PACKETS / 5 {
        random.add(&generator.bytes::<32>());
        keys.add(SecretKey::from_bytes(generator.bytes()).public_key().as_bytes());
    }
    assert!(random.worst() < DEVIATIONS, "{}", random.worst());
    assert!(keys.bit_deviation(31, 7) < -40.0);
    assert!(keys.byte_deviation(31) > 20.0);
}
