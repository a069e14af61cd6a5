//! The TOML parser's messages in words that a person can act on.

/// What a part of a message is replaced by, and what to try. The first that fits counts.
const WORDS: [(&str, &str, &str); 14] = [
    ("expected u8", "expected a number of threads", "a whole number from 1 to 16, without quotation marks"),
    ("expected u16", "expected a port", "a whole number from 1 to 65535, without quotation marks"),
    ("expected u32", "expected a whole number", "a number from 0 to 4294967295, without quotation marks"),
    ("expected a boolean", "expected true or false", "true or false, without quotation marks"),
    (
        "expected a sequence",
        "expected a list",
        "a list stands in brackets, as in [\"wg0\", \"192.0.2.0/24\"]",
    ),
    (
        "expected path string",
        "expected a path",
        "a path stands in quotation marks, as in \"/etc/spa/server.key\"",
    ),
    ("expected a string", "expected text", "text stands in quotation marks, as in \"60s\""),
    ("wanted string or table", "expected text", "text stands in quotation marks, as in \"iptables\""),
    (
        "expected struct",
        "expected a section of keys",
        "its name in brackets on a line of its own, as in [server]",
    ),
    ("string values must be quoted", "not a value", UNQUOTED),
    ("invalid boolean", "not a value", UNQUOTED),
    ("unclosed table", "a section's name without its end", "as in [server]"),
    ("key with no value", "a key without a value", "KEY = VALUE, as in port = 23117"),
    ("duplicate key", "this key stands here a second time", "take one of the two out"),
];
const UNQUOTED: &str =
    "text stands in quotation marks, as in ssh = \"tcp/22\"; numbers, true and false do not";

/// What is wrong, and what to try, where there is something that is not in the message.
pub fn reword(message: &str) -> (String, Option<String>) {
    let message = message.trim_end();
    let mut names = message.split('`').skip(1).step_by(2);
    let name = names.next().unwrap_or_default();
    if message.starts_with("unknown field") {
        let keys = names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let sections = if keys.contains("`server`") { ", each a section, as in [server]" } else { "" };
        return (format!("unknown key `{name}`"), Some(format!("the keys here are {keys}{sections}")));
    }
    if message.starts_with("missing field") {
        let hint = "spa-server.toml(5) has every key and what it may hold";
        return (format!("the key `{name}` is missing"), Some(hint.to_owned()));
    }
    match WORDS.iter().find(|(theirs, _, _)| message.contains(theirs)) {
        // "invalid type: string "22", expected u16" keeps what was found; what the parser guessed at is left out.
        Some((theirs, ours, hint)) if theirs.starts_with("expected") => {
            let before = message.split(theirs).next().unwrap_or_default();
            (format!("{before}{ours}"), Some((*hint).to_owned()))
        }
        Some((_, ours, hint)) => ((*ours).to_owned(), Some((*hint).to_owned())),
        None => (message.to_owned(), None),
    }
}
