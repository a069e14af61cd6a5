//! What each step of the gate costs, by the number of clients and of remembered keys.
//!
//!     cargo bench -p spa-gate --bench steps
//!
//! `tests/bench.sh steps` runs it and prints its medians as rows of the bench.
#![allow(missing_docs)]

mod workload;

use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use workload::{Population, Round, Step};

/// Clients that knock in one round. A round is prepared before each sample, by knocks that are sealed, verified and opened: more
/// of them would take minutes of preparation.
const KNOCKING: usize = 16;

/// Time of `iterations` of the step, in rounds that are prepared off the clock.
fn time(step: Step, population: &mut Population, remembered: usize, iterations: u64) -> Duration {
    let (mut spent, mut done) = (Duration::ZERO, 0);
    while done < iterations {
        let mut round = Round::new(step, population, remembered);
        let start = Instant::now();
        round.run();
        spent += start.elapsed();
        done += round.len() as u64;
    }
    spent.mul_f64(iterations as f64 / done as f64)
}

fn by_clients(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("clients");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    for clients in [1, 100, 10_000, 100_000] {
        let mut population = Population::new(clients, KNOCKING);
        for step in Step::ALL {
            group.bench_function(BenchmarkId::new(step.name(), clients), |bencher| {
                bencher.iter_custom(|iterations| time(step, &mut population, 0, iterations));
            });
        }
    }
}

fn by_remembered(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("remembered keys");
    group.sample_size(10).warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1));
    let mut population = Population::new(KNOCKING, KNOCKING);
    for remembered in [1, 1_000, 100_000, 1_000_000] {
        group.bench_function(BenchmarkId::new(Step::Judge.name(), remembered), |bencher| {
            bencher.iter_custom(|iterations| time(Step::Judge, &mut population, remembered, iterations));
        });
    }
}

criterion_group!(benches, by_clients, by_remembered);
criterion_main!(benches);
