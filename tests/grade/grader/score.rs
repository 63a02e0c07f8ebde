//! Points: what was checked, what it is worth, and why points were lost.

use std::fmt;
use std::time::Instant;

use serde::Serialize;

/// The result of a grading.
#[derive(Serialize)]
pub struct Report {
    pub seed: u64,
    pub points: f64,
    pub earned: f64,
    pub phases: Vec<Phase>,
}

impl Report {
    pub fn new(seed: u64, phases: Vec<Phase>) -> Report {
        Report {
            seed,
            points: phases.iter().map(|phase| phase.points).sum(),
            earned: phases.iter().map(|phase| phase.earned).sum(),
            phases,
        }
    }

    pub fn is_full(&self) -> bool {
        self.earned == self.points
    }
}

/// One phase. Its points are shared out evenly over its checks.
#[derive(Serialize)]
pub struct Phase {
    pub number: usize,
    pub title: &'static str,
    pub points: f64,
    pub earned: f64,
    pub seconds: f64,
    pub checks: Vec<Check>,
}

/// One named check.
#[derive(Serialize)]
pub struct Check {
    pub name: &'static str,
    pub points: f64,
    /// `None` if it passed.
    pub lost: Option<Lost>,
}

/// Why a check's points were lost: the first thing that was not as it should be.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Lost {
    pub asked: String,
    pub answered: String,
    pub expected: String,
}

impl Lost {
    pub fn new(
        asked: impl Into<String>,
        answered: impl Into<String>,
        expected: impl Into<String>,
    ) -> Lost {
        Lost {
            asked: asked.into(),
            answered: answered.into(),
            expected: expected.into(),
        }
    }
}

/// Takes down the results of one phase.
pub struct Score {
    names: &'static [&'static str],
    results: Vec<Result<(), Lost>>,
    began: Instant,
}

impl Score {
    /// An empty score for these checks, which are made in this order.
    pub fn new(names: &'static [&'static str]) -> Score {
        Score {
            names,
            results: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Notes the result of the next check.
    pub fn note(&mut self, name: &str, result: Result<(), Lost>) {
        assert_eq!(self.names.get(self.results.len()), Some(&name));
        self.results.push(result);
    }

    /// Loses every check that was not made.
    pub fn abandon(&mut self, why: &str) {
        let lost = Lost::new("that the phase goes on", why, "that nothing stops it");
        self.results.resize(self.names.len(), Err(lost));
    }

    pub fn phase(self, number: usize, title: &'static str, points: f64) -> Phase {
        assert_eq!(self.results.len(), self.names.len(), "not all was checked");
        let each = points / self.names.len() as f64;
        let passed = self.results.iter().filter(|result| result.is_ok()).count();
        let checks = self.names.iter().zip(self.results);
        Phase {
            number,
            title,
            points,
            earned: points * passed as f64 / self.names.len() as f64,
            seconds: self.began.elapsed().as_secs_f64(),
            checks: checks
                .map(|(name, result)| Check {
                    name,
                    points: each,
                    lost: result.err(),
                })
                .collect(),
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let points = format!("{} of {} points", rounded(self.earned), self.points);
        writeln!(
            f,
            "Phase {}  {:<58} {points}, {:.1} s",
            self.number, self.title, self.seconds
        )?;
        for check in &self.checks {
            let Some(lost) = &check.lost else {
                writeln!(f, "    ok    {}", check.name)?;
                continue;
            };
            writeln!(f, "    LOST  {} ({})", check.name, rounded(check.points))?;
            writeln!(f, "          asked:    {}", lost.asked)?;
            writeln!(f, "          answered: {}", lost.answered)?;
            writeln!(f, "          expected: {}", lost.expected)?;
        }
        Ok(())
    }
}

/// Points rounded to two decimal places.
pub fn rounded(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}
