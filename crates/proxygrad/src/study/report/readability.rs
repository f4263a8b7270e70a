//! Tables and captions of the readability of stimuli.

use crate::judge::Verdict;
use crate::report::html::{number, optional, percent, probability};
use crate::study::row::Row;
use crate::study::summary::{ArmSummary, JudgeSummary, ReadabilitySummary, Recognized, Section, SignTest};

/// Heads of the table of readability, compared with the arm `against`.
pub(super) fn heads(against: &str) -> Vec<String> {
    let fixed = |head: &str| head.to_owned();
    vec![
        fixed("arm"),
        fixed("judge"),
        fixed("classes"),
        fixed("top 1"),
        format!("better, worse than {against}; p"),
        fixed("top 5"),
        format!("better, worse than {against}; p"),
        fixed("median probability"),
        fixed("median affinity (units)"),
        format!("better, worse than {against}; p"),
        fixed("percent of natural maximum"),
        fixed("spectral excess"),
        fixed("judging, s"),
    ]
}

/// Rows of that table: one per arm and judge. Empty without judges.
pub(super) fn rows(section: &Section, against: &str) -> Vec<Vec<String>> {
    let of_arm = |arm: &ArmSummary| {
        let readability = arm.readability.as_ref()?;
        Some(readability.judges.iter().map(|judge| row(arm, readability, judge, against)).collect::<Vec<_>>())
    };
    section.arms.iter().filter_map(of_arm).flatten().collect()
}

fn row(arm: &ArmSummary, readability: &ReadabilitySummary, judge: &JudgeSummary, against: &str) -> Vec<String> {
    let test = |test: &SignTest, cases: usize| match arm.arm == against || cases == 0 {
        true => "–".to_owned(),
        false => format!("{}, {}; {}", test.better, test.worse, optional(test.p, probability)),
    };
    let affinity = match judge.rated {
        0 => "–".to_owned(),
        rated => format!("{} ({rated})", optional(judge.median_affinity, number)),
    };
    vec![
        arm.arm.clone(),
        judge.judge.clone(),
        judge.classes.to_string(),
        share(&judge.top_1),
        test(&judge.top_1.against, judge.classes),
        share(&judge.top_5),
        test(&judge.top_5.against, judge.classes),
        optional(judge.median_probability, percent),
        affinity,
        test(&judge.affinity_against, judge.rated),
        optional(readability.median_percent_of_natural, |value| percent(value / 100.0)),
        optional(readability.median_spectral_excess, number),
        optional(readability.seconds, number),
    ]
}

fn share(recognized: &Recognized) -> String {
    let interval = recognized.interval.map(|[low, high]| format!(" ({} to {})", percent(low), percent(high)));
    optional(recognized.share, percent) + &interval.unwrap_or_default()
}

/// What the judges say about a run, one line each.
pub(super) fn captions(run: &Row) -> Vec<String> {
    let caption = |verdict: &Verdict| {
        let class = verdict.rank.zip(verdict.probability);
        let class = class.map(|(rank, probability)| format!("rank {rank}, {}", percent(probability.into())));
        let affinity = verdict.affinity.map(|affinity| format!("affinity {}", number(affinity.into())));
        let said: Vec<String> = class.into_iter().chain(affinity).collect();
        (!said.is_empty()).then(|| format!("{}: {}", verdict.judge, said.join(", ")))
    };
    run.readability.iter().flat_map(|readability| &readability.verdicts).filter_map(caption).collect()
}

/// Definitions of the columns.
pub(super) const GLOSSARY: [(&str, &str); 5] = [
    (
        "judge",
        "A network that took no part in making a stimulus and is shown the delivered image at its own input size.",
    ),
    (
        "top 1, top 5",
        "Share of the stimuli whose class the judge ranks first, or among its first five, with Wilson's 95 % interval; \
         mean over units. Better, worse: units on which the share is higher or lower than the reference's, with the exact \
         sign test (McNemar's test for one start).",
    ),
    (
        "affinity",
        "Probability that a natural image of the unit is more similar to the stimulus than one of another unit of the \
         layer is, in the judge's last layer before its logits; one half is chance. In brackets the number of units.",
    ),
    (
        "percent of natural maximum",
        "Median over calibrated units of the score relative to the largest on natural images.",
    ),
    (
        "spectral excess",
        "Median share of the spectral energy at higher frequencies than in natural images, whose power falls with the \
         square of the frequency.",
    ),
];
