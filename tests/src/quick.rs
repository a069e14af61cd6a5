//! Whether a bench is run to see that it works, and not for its figures.

/// The environment variable that says so: a directory, for the files that `tests/bench.sh` writes.
const VARIABLE: &str = "SPA_BENCH_QUICK";

/// Whether it is.
pub fn is_quick() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// How much of something: the first for figures, the second to see that it works.
pub fn full_or<T>(full: T, quick: T) -> T {
    if is_quick() { quick } else { full }
}
