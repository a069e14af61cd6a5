//! Whether a bench is run to see that it works, and not for its figures.

/// The environment variable that says so. For `tests/bench.sh` its value is a directory, for the files that it writes.
pub const VARIABLE: &str = "SPA_BENCH_SHORT";

/// Whether it is.
pub fn is_short() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// How much of something: the first for figures, the second to see that it works.
pub fn full_or<T>(full: T, short: T) -> T {
    if is_short() { short } else { full }
}
