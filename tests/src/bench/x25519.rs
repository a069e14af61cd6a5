//! The limit: what one X25519 takes.

use std::hint::black_box;

use spa_proto::SecretKey;

use super::flood;

const TIMES: u32 = 4_000;

/// What something cannot go below.
pub struct Limit {
    /// "X25519 of x25519-dalek, alone".
    pub whose: &'static str,
    /// On a processor.
    pub seconds: f64,
}

/// The bare operation as the crate x25519-dalek has it, a ladder; and as this project does it (`spa_proto::x25519`), which
/// is quicker where the processor has AVX2. Both built as the bench is, on points as honest clients send them.
pub fn both() -> [Limit; 2] {
    let private: [u8; 32] = rand::random();
    let secret = SecretKey::from_bytes(private);
    let peer = *SecretKey::from_bytes(rand::random()).public_key().as_bytes();
    let dalek = || _ = black_box(x25519_dalek::x25519(black_box(private), black_box(peer)));
    let ours = || _ = black_box(secret.diffie_hellman(black_box(&peer)));
    [
        Limit { whose: "X25519 of x25519-dalek, alone", seconds: seconds(dalek) },
        Limit { whose: "X25519 of ours, alone", seconds: seconds(ours) },
    ]
}

fn seconds(once: impl Fn()) -> f64 {
    let before = flood::thread_cpu();
    for _ in 0..TIMES {
        once();
    }
    flood::thread_cpu().saturating_sub(before).as_secs_f64() / f64::from(TIMES)
}
