//! Questions that cannot be answered are answered both ways, one run for each combination.

use super::place::Place;

/// How many runs are made at most: eight questions of two answers.
const MAX_RUNS: usize = 256;

/// Answers for one run, and what was asked in it.
#[derive(Debug, Default)]
pub struct Oracle {
    answers: Vec<bool>,
    asked: Vec<Place>,
}

impl Oracle {
    /// Whether what nobody knows is so, this time.
    pub fn ask(&mut self, about: &Place) -> bool {
        let at = self.asked.len();
        if at == self.answers.len() {
            self.answers.push(false);
        }
        self.asked.push(about.clone());
        self.answers[at]
    }

    /// The answers for the next run: the last "no" becomes a "yes". `None` if all were tried.
    fn next(mut self) -> Option<Self> {
        while self.answers.pop()? {}
        self.answers.push(true);
        Some(Self { answers: self.answers, asked: Vec::new() })
    }
}

/// What came of all runs.
pub struct Runs<T> {
    /// Each run's result, at least one.
    pub results: Vec<T>,
    /// What was asked, each once.
    pub asked: Vec<Place>,
    /// There were too many questions to try everything.
    pub unfinished: bool,
}

/// Makes a run for each way to answer what it asks.
pub fn all_runs<T>(mut run: impl FnMut(&mut Oracle) -> T) -> Runs<T> {
    let mut runs = Runs { results: Vec::new(), asked: Vec::new(), unfinished: false };
    let mut oracle = Some(Oracle::default());
    while let Some(mut current) = oracle {
        if runs.results.len() == MAX_RUNS {
            runs.unfinished = true;
            break;
        }
        runs.results.push(run(&mut current));
        for place in &current.asked {
            if !runs.asked.contains(place) {
                runs.asked.push(place.clone());
            }
        }
        oracle = current.next();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_combination_is_tried_once() {
        let place = Place::default();
        let mut seen = Vec::new();
        all_runs(|oracle| {
            // The second question comes up only after a yes.
            let first = oracle.ask(&place);
            seen.push((first, first && oracle.ask(&place)));
        });
        assert_eq!(seen, [(false, false), (true, false), (true, true)]);
    }

    #[test]
    fn too_many_questions_end() {
        let runs = all_runs(|oracle| (0..20).filter(|_| oracle.ask(&Place::default())).count());
        assert!(runs.unfinished && runs.results.len() == MAX_RUNS && runs.asked.len() == 1);
    }
}
