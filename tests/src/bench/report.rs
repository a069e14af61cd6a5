//! What was measured, as a table, as JSON and as a plot.

use std::fmt::Write;

use serde_json::{Value, json};

/// One figure, or the statement that there is none.
pub struct Row {
    /// What was measured: "knock to open port, warm".
    pub bench: String,
    /// Of whom: "spa", "fwknopd".
    pub subject: String,
    /// "median", "p99".
    pub measure: String,
    /// `None`: absent, and `unit` says why.
    pub value: Option<f64>,
    /// "ms", "ns".
    pub unit: String,
}

impl Row {
    /// A figure.
    pub fn new(bench: &str, subject: &str, measure: &str, value: f64, unit: &str) -> Self {
        Self {
            bench: bench.into(),
            subject: subject.into(),
            measure: measure.into(),
            value: Some(value),
            unit: unit.into(),
        }
    }

    /// No figure, and why.
    pub fn absent(bench: &str, subject: &str, why: &str) -> Self {
        Self { value: None, ..Self::new(bench, subject, "absent", 0.0, why) }
    }

    /// Least, median, p99, maximum and the number of samples.
    pub fn spread(bench: &str, subject: &str, values: Vec<f64>, unit: &str) -> Vec<Self> {
        let samples = Self::new(bench, subject, "samples", values.len() as f64, "");
        let Some(spread) = super::spread(values) else {
            return vec![Self::absent(bench, subject, "no sample")];
        };
        let names = ["least", "median", "p99", "max"];
        let mut rows: Vec<Self> = names
            .iter()
            .zip(spread)
            .map(|(name, value)| Self::new(bench, subject, name, value, unit))
            .collect();
        rows.push(samples);
        rows
    }
}

/// On what the run was made.
pub fn machine(short: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = [
        ("date", "date -u +%Y-%m-%dT%H:%MZ"),
        ("kernel", "uname -sr"),
        ("processor", "echo $(nproc) x $(sed -n 's/^model name.*: //p' /proc/cpuinfo | head -n 1)"),
    ]
    .map(|(what, line)| Row::absent("machine", what, spa_tests::sh(line).trim()))
    .into();
    rows.push(load("load average before"));
    if short {
        rows.push(Row::absent("machine", "samples", "few: a short run, whose figures mean nothing"));
    }
    rows
}

/// How busy the machine was: with more than its share, times are those of a busy machine.
pub fn load(when: &str) -> Row {
    Row::absent("machine", when, spa_tests::sh("cut -d' ' -f1-3 /proc/loadavg").trim())
}

/// One line a bench, subject and measure.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what | whose | measure | figure |\n|---|---|---|---|\n");
    for Row { bench, subject, measure, value, unit } in rows {
        let figure = value.map_or_else(|| unit.clone(), |value| format!("{} {unit}", number(value)));
        let measure = if bench == "machine" { "" } else { measure };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {bench} | {subject} | {measure} | {} |", figure.trim());
    }
    text
}

/// Three significant digits, and no more.
fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        size if size < 10.0 && value.fract() != 0.0 => format!("{value:.2}"),
        size if size < 100.0 && value.fract() != 0.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// An array of objects with the fields of [`Row`].
pub fn json(rows: &[Row]) -> String {
    let object = |row: &Row| json!({ "bench": row.bench, "subject": row.subject, "measure": row.measure, "value": row.value, "unit": row.unit });
    let lines: Vec<String> = rows.iter().map(|row| format!("  {}", object(row))).collect();
    format!("[\n{}\n]\n", lines.join(",\n"))
}

/// The reverse of [`json`].
pub fn parse(text: &str) -> Vec<Row> {
    let array: Vec<Value> = serde_json::from_str(text).expect("written by the same program");
    let field = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let rows = array.iter().map(|row| Row {
        bench: field(row, "bench"),
        subject: field(row, "subject"),
        measure: field(row, "measure"),
        value: row["value"].as_f64(),
        unit: field(row, "unit"),
    });
    rows.collect()
}

const LABEL: f64 = 420.0;
const BAR: f64 = 18.0;
const DECADE: f64 = 70.0;

/// Bars of the figures in milliseconds, on a logarithmic scale from a hundredth of one.
pub fn svg(rows: &[Row]) -> String {
    let shown: Vec<(&Row, f64)> = rows
        .iter()
        .filter(|row| row.unit == "ms" && matches!(row.measure.as_str(), "least" | "median"))
        .filter_map(|row| Some((row, row.value?)))
        .collect();
    let (width, height) = (LABEL + DECADE * 6.0 + 20.0, BAR * (shown.len() as f64 + 3.0));
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    let x = |value: f64| LABEL + (value.max(0.01).log10() + 2.0) * DECADE;
    for decade in -2..=3 {
        let (at, end) = (x(10_f64.powi(decade)), height - BAR * 1.5);
        let _ = writeln!(text, "<line x1=\"{at}\" y1=\"4\" x2=\"{at}\" y2=\"{end}\" stroke=\"#cccccc\"/>");
        let label = 10_f64.powi(decade);
        let _ =
            writeln!(text, "<text x=\"{at}\" y=\"{}\" text-anchor=\"middle\">{label} ms</text>", end + 14.0);
    }
    for (index, (row, value)) in shown.iter().enumerate() {
        let y = BAR * (index as f64 + 0.5);
        let colour = match row.subject.as_str() {
            "spa" | "spa, nftables" => "#2b7a3d",
            "fwknopd" | "fwknop" => "#b5442e",
            "knockd" => "#c08a1e",
            _ => "#777777",
        };
        let bar = (x(*value) - LABEL).max(1.0);
        let label = format!("{}: {}, {}", row.bench, row.subject, row.measure);
        let middle = y + BAR * 0.65;
        let _ =
            writeln!(text, "<text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{label}</text>", LABEL - 6.0);
        let height = BAR - 4.0;
        let _ = writeln!(
            text,
            "<rect x=\"{LABEL}\" y=\"{y}\" width=\"{bar:.1}\" height=\"{height}\" fill=\"{colour}\"/>"
        );
        let _ =
            writeln!(text, "<text x=\"{:.1}\" y=\"{middle}\">{}</text>", LABEL + bar + 4.0, number(*value));
    }
    text + "</svg>\n"
}
