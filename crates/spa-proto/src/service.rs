//! Names: of a service on a server, and of a client.

use core::fmt;
use core::str::FromStr;

/// The text is not a name of the wanted kind. It holds the rule, never the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameError(&'static str);

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for NameError {}

/// Defines a validated name: `new` characters are checked by the two predicates.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $max:literal, $first:expr, $rest:expr, $rule:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Longest name, in bytes.
            pub const MAX_LENGTH: usize = $max;

            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let (first, rest): (fn(u8) -> bool, fn(u8) -> bool) = ($first, $rest);
                let bytes = text.as_bytes();
                let fits = bytes.len() <= Self::MAX_LENGTH
                    && bytes.first().is_some_and(|byte| first(*byte))
                    && bytes.iter().all(|byte| rest(*byte));
                if fits { Ok(Self(text.to_owned())) } else { Err(NameError($rule)) }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

name!(
    /// What a server's configuration calls a service: `[a-z][a-z0-9-]{0,31}`.
    ServiceName,
    32,
    |byte| byte.is_ascii_lowercase(),
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-',
    "a service name is 1 to 32 of a-z, 0-9 and -, beginning with a letter"
);
name!(
    /// What a server calls a client: `[a-z0-9][a-z0-9._-]{0,31}`.
    ClientName,
    32,
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit(),
    |byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte),
    "a client name is 1 to 32 of a-z, 0-9, '.', '_' and '-', beginning with a letter or digit"
);
