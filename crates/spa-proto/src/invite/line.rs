//! Bytes as one line of text: a prefix, then base64url of their length, themselves, and a check.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use blake2::{Blake2s256, Digest as _};
use zeroize::Zeroizing;

use super::InviteError;

/// Bytes of the length before the content.
const LENGTH_LENGTH: usize = 2;
/// Bytes of the check after the content.
const CHECK_LENGTH: usize = 4;

/// The line, without a line feed. The content is bounded by the limits of its fields, far below 2^16 bytes.
pub(super) fn encode(prefix: &str, content: &[u8]) -> Zeroizing<String> {
    let length = content.len() + CHECK_LENGTH;
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH_LENGTH + length));
    bytes.extend((length as u16).to_be_bytes());
    bytes.extend_from_slice(content);
    let check = check(&bytes);
    bytes.extend(check);
    let mut line = Zeroizing::new(String::with_capacity(prefix.len() + characters(bytes.len())));
    line.push_str(prefix);
    URL_SAFE_NO_PAD.encode_string(&*bytes, &mut line);
    line
}

/// The content of a line whose prefix was taken off, with the cause where it is none.
pub(super) fn decode(prefix: &str, body: &str) -> Result<Zeroizing<Vec<u8>>, InviteError> {
    let bytes = from_base64(prefix, body)?;
    let (rest, sum) = bytes.split_last_chunk::<CHECK_LENGTH>().ok_or(InviteError::Damaged)?;
    if check(rest) != *sum {
        return Err(InviteError::Damaged);
    }
    rest.get(LENGTH_LENGTH..).map(|content| Zeroizing::new(content.to_vec())).ok_or(InviteError::Damaged)
}

/// Base64 to bytes, with the cause where the count of characters is not what the length at their beginning says.
fn from_base64(prefix: &str, body: &str) -> Result<Zeroizing<Vec<u8>>, InviteError> {
    let foreign = |byte: u8| !(byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if let Some(index) = body.bytes().position(foreign) {
        return Err(InviteError::Character(prefix.len() + index + 1));
    }
    let head = body.get(..4).ok_or(InviteError::Truncated(4 - body.len().min(4)))?;
    let head = Zeroizing::new(URL_SAFE_NO_PAD.decode(head).map_err(|_| InviteError::Damaged)?);
    let wanted = characters(LENGTH_LENGTH + usize::from(u16::from_be_bytes([head[0], head[1]])));
    if body.len() < wanted {
        return Err(InviteError::Truncated(wanted - body.len()));
    }
    if body.len() > wanted {
        return Err(InviteError::Extended(body.len() - wanted));
    }
    URL_SAFE_NO_PAD.decode(body).map(Zeroizing::new).map_err(|_| InviteError::Damaged)
}

fn check(bytes: &[u8]) -> [u8; CHECK_LENGTH] {
    let mut check = [0; CHECK_LENGTH];
    check.copy_from_slice(&Blake2s256::digest(bytes)[..CHECK_LENGTH]);
    check
}

/// Base64 characters, without padding, of so many bytes.
const fn characters(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}
