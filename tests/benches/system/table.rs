//! Numbers into medians, spreads and ratios.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::chart::Bar;
use crate::measure::{Contender, MEASURES, Measure};

/// All numbers of all rounds.
#[derive(Debug, Default)]
pub(crate) struct Results {
    values: BTreeMap<(&'static str, Contender), Vec<f64>>,
}

impl Results {
    /// Takes in the number of one round.
    pub(crate) fn add(&mut self, measure: &Measure, contender: Contender, value: f64) {
        self.values.entry((measure.name, contender)).or_default().push(value);
    }

    fn median(&self, measure: &Measure, contender: Contender) -> Option<f64> {
        let mut values = self.values.get(&(measure.name, contender))?.clone();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        Some(match values.len() % 2 {
            0 => f64::midpoint(values[middle - 1], values[middle]),
            _ => values[middle],
        })
    }

    /// Median and, as a part of it, half the distance between the extremes.
    fn cell(&self, measure: &Measure, contender: Contender) -> String {
        let Some(median) = self.median(measure, contender) else { return "-".to_owned() };
        let values = &self.values[&(measure.name, contender)];
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let spread = if median == 0.0 { 0.0 } else { (most - least) / median * 50.0 };
        format!("{} ±{spread:.0}%", figures(median))
    }

    fn ratio(&self, measure: &Measure, to: Contender) -> String {
        match (self.median(measure, Contender::Ours), self.median(measure, to)) {
            (Some(ours), Some(theirs)) if theirs != 0.0 => format!("{:.3}", ours / theirs),
            _ => "-".to_owned(),
        }
    }

    /// How many times as much as `to` we reach, for each measure; turned over where less is better.
    pub(crate) fn bars(&self, to: Contender) -> Vec<Bar> {
        let bar = |measure: &Measure| {
            let ours = self.median(measure, Contender::Ours)?;
            let theirs = self.median(measure, to)?;
            let less = ["s/GB", "1/GB", "MB/GB", "us", "ms", "MiB", "octets"];
            let less_is_better = less.contains(&measure.unit);
            let ratio = if less_is_better { theirs / ours } else { ours / theirs };
            Some((measure.name.to_owned(), ratio)).filter(|(_, ratio)| ratio.is_finite())
        };
        MEASURES.iter().filter_map(bar).collect()
    }

    /// The table as documents have it.
    pub(crate) fn markdown(&self) -> String {
        let mut text = "| measure | unit | bare | ours | upstream | ours/bare | ours/upstream |\n\
                        | --- | --- | --- | --- | --- | --- | --- |\n"
            .to_owned();
        for measure in MEASURES {
            if self.median(measure, Contender::Ours).is_none() {
                continue;
            }
            let cell = |contender| self.cell(measure, contender);
            let ratio = |contender| self.ratio(measure, contender);
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {} | {} |",
                measure.name,
                measure.unit,
                cell(Contender::Bare),
                cell(Contender::Ours),
                cell(Contender::Upstream),
                ratio(Contender::Bare),
                ratio(Contender::Upstream),
            );
        }
        text
    }

    /// The table for people.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let mut row = |cells: [&str; 8]| {
            let [name, unit, bare, ours, upstream, to_bare, to_upstream, to_before] = cells;
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "{name:<32} {unit:<7} {bare:>15} {ours:>15} {upstream:>15} {to_bare:>10} \
                 {to_upstream:>14} {to_before:>12}"
            );
        };
        row([
            "measure",
            "unit",
            "bare",
            "ours",
            "upstream",
            "ours/bare",
            "ours/upstream",
            "ours/before",
        ]);
        for measure in MEASURES {
            if self.median(measure, Contender::Ours).is_none() {
                continue;
            }
            row([
                measure.name,
                measure.unit,
                &self.cell(measure, Contender::Bare),
                &self.cell(measure, Contender::Ours),
                &self.cell(measure, Contender::Upstream),
                &self.ratio(measure, Contender::Bare),
                &self.ratio(measure, Contender::Upstream),
                &self.ratio(measure, Contender::Before),
            ]);
        }
        text
    }
}

/// A number with as many decimals as are worth reading.
fn figures(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
