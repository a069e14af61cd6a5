//! The worked example of `docs/PROTOCOL.md`, between two markers.

use super::valid::{Vector, vectors};

pub(super) const PATH: &str = "docs/PROTOCOL.md";
const BEGIN: &str =
    "<!-- The worked example: made by crates/spa-proto/src/vectors/page.rs, not by hand. -->\n";
const END: &str = "<!-- End of the worked example. -->\n";
/// Bytes of hexadecimal on a line.
const BYTES_A_LINE: usize = 32;

/// The page with the example as the code makes it.
pub(super) fn text(page: &str) -> String {
    let (before, rest) = page.split_once(BEGIN).expect("the page has the first marker");
    let (_, after) = rest.split_once(END).expect("the page has the second marker");
    let example = example(&vectors()[0]);
    format!("{before}{BEGIN}\n```text\n{example}```\n\n{END}{after}")
}

fn example(vector: &Vector) -> String {
    let mut out = String::new();
    let mut line = |name: &str, bytes: &[u8]| {
        out += &format!("{name}\n");
        for chunk in bytes.chunks(BYTES_A_LINE) {
            out += &format!("    {}\n", hex::encode(chunk));
        }
    };
    let keys = &vector.keys;
    let sealed = vector.sealed();
    line("server private key", keys.server.expose());
    line("server public key", keys.server_public().as_bytes());
    line("client private key", keys.client.expose());
    line("client public key", keys.client.public_key().as_bytes());
    line("psk", keys.psk.expose());
    line("cloak key", keys.cloak.expose());
    line("filter key", &sealed.filter);
    line("mask key", &sealed.mask);
    line("hint key", &sealed.hint_key);
    line("gate key", &sealed.gate);
    line("Noise psk", &sealed.noise_psk);
    line("hedge key", &sealed.hedge);
    line("N (12 random bytes)", &vector.random.nonce);
    line("R (32 random bytes)", &vector.random.ephemeral);
    line("counter", &vector.knock.counter.to_be_bytes());
    line("time", &sealed.time.to_be_bytes());
    line("epoch", &crate::envelope::epoch(sealed.time).to_be_bytes());
    line("hint", &sealed.hint);
    line("ephemeral private key", sealed.ephemeral.expose());
    line("ephemeral public key, e", sealed.ephemeral.public_key().as_bytes());
    line("es", sealed.es.expose());
    line("ss", sealed.ss.expose());
    line("prologue", &sealed.prologue);
    for step in &sealed.noise {
        line(&format!("ck after {}", step.name), &step.chaining_key);
        line(&format!("h after {}", step.name), &step.hash);
        if step.key != [0; 32] {
            line(&format!("k after {}", step.name), &step.key);
        }
    }
    line("payload", &sealed.payload);
    line("ciphertext", &sealed.unmasked[80..]);
    line("M", &sealed.unmasked[40..48]);
    line("bytes 28 to the end before the mask", &sealed.unmasked[28..]);
    line("first 64 bytes of the mask", &sealed.mask_start);
    line("T", &sealed.packet[12..28]);
    line("packet", &sealed.packet);
    out
}
