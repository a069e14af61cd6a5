//! Where a server is: a host name or an IP address, as text.

use core::net::IpAddr;

/// Longest host name in its text form without the final dot, in bytes (RFC 1035 section 2.3.4).
pub const MAX_HOST_LENGTH: usize = 253;
/// Longest label of a host name, in bytes (RFC 1035 section 2.3.4).
const MAX_LABEL_LENGTH: usize = 63;

/// Whether the text is an IPv4 or IPv6 address (without brackets or zone), or a host name: 1 to 253 bytes of
/// labels joined by dots, a label being 1 to 63 of letters, digits, `-` and `_` with no `-` at either end, and the
/// last not all digits, so that a misspelt IPv4 address is no host name (RFC 1123 section 2.1).
pub fn is_host(text: &str) -> bool {
    if text.parse::<IpAddr>().is_ok() {
        return true;
    }
    let last = text.rsplit('.').next().unwrap_or_default();
    text.len() <= MAX_HOST_LENGTH
        && text.split('.').all(is_label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL_LENGTH).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::is_host;

    #[test]
    fn hosts_are_told_from_other_text() {
        let longest = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        for text in
            ["bastion.example.org", "a", "192.0.2.1", "2001:db8::1", "my_host", "1.2.3.four", &longest]
        {
            assert!(is_host(text), "{text}");
        }
        let label = "a".repeat(64);
        let long = format!("{longest}e");
        for text in [
            "",
            ".",
            "a.",
            ".a",
            "a..b",
            "-a",
            "a-",
            "a b",
            "192.0.2.256",
            "1.2.3",
            "[::1]",
            "fe80::1%eth0",
            "a\n",
            "b\u{fc}cher",
            "a/b",
            "host:22",
            &label,
            &long,
        ] {
            assert!(!is_host(text), "{text:?}");
        }
    }
}
