//! Tables, as lines for a terminal and as HTML.

use std::fmt::Write as _;

use super::html::escape;

/// A table that is being made: columns of numbers to the right, of text to the left.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    heading: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The columns that hold text.
    text: Vec<usize>,
}

impl Table {
    /// A table with this title and heading, which names the units. The columns in `text` hold text.
    #[must_use]
    pub fn new(title: impl Into<String>, heading: &[&str], text: &[usize]) -> Self {
        let heading = heading.iter().map(ToString::to_string).collect();
        Self { title: title.into(), heading, rows: Vec::new(), text: text.to_vec() }
    }

    /// A table that stands under a title of somebody else's.
    #[must_use]
    pub fn untitled(heading: &[&str], text: &[usize]) -> Self {
        Self::new(String::new(), heading, text)
    }

    /// Whether nothing stands under the heading.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Adds a row.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// The table as lines: title if there is one, heading, a rule, rows.
    #[must_use]
    pub fn lines(&self) -> String {
        let all = || std::iter::once(&self.heading).chain(&self.rows);
        let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        let widths: Vec<usize> = (0..self.heading.len()).map(|column| width(column).unwrap_or(0)).collect();
        let mut lines = String::new();
        if !self.title.is_empty() {
            let _ = writeln!(lines, "{}", self.title);
        }
        for (number, row) in all().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if self.text.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            let _ = writeln!(lines, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
            if number == 0 {
                let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
                let _ = writeln!(lines, "{}", rules.join("  "));
            }
        }
        lines
    }

    /// The table as HTML, in a box that scrolls where the window is narrow.
    #[must_use]
    pub fn html(&self) -> String {
        let class = |column: usize| if self.text.contains(&column) { " class=\"text\"" } else { "" };
        let cells = |row: &[String], tag: &str| -> String {
            let cell = |(column, cell): (usize, &String)| format!("<{tag}{}>{}</{tag}>", class(column), escape(cell));
            row.iter().enumerate().map(cell).collect()
        };
        let rows: String = self.rows.iter().map(|row| format!("<tr>{}</tr>\n", cells(row, "td"))).collect();
        format!(
            "<div class=\"scroll\"><table>\n<caption>{}</caption>\n<thead><tr>{}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n",
            escape(&self.title),
            cells(&self.heading, "th")
        )
    }
}

/// A number with its thousands apart.
#[must_use]
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A figure with three digits that count, and its thousands apart.
#[must_use]
pub fn figure(value: f64) -> String {
    match value {
        _ if !value.is_finite() => "-".to_owned(),
        _ if value.abs() >= 100.0 => number(value.round() as u64),
        _ if value.abs() >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_text_to_the_left() {
        let mut table = Table::new("Uses", &["row", "uses", "verdict"], &[0, 2]);
        table.row(vec!["mix".into(), number(1234), "fine".into()]);
        table.row(vec!["bystander".into(), number(7), "x".into()]);
        assert_eq!(
            table.lines(),
            "Uses\n\
             row         uses  verdict\n\
             ---------  -----  -------\n\
             mix        1,234  fine\n\
             bystander      7  x\n"
        );
    }

    #[test]
    fn what_looks_like_html_is_escaped() {
        let mut table = Table::new("a < b", &["x & y"], &[0]);
        table.row(vec!["<b>".into()]);
        let html = table.html();
        assert!(html.contains("a &lt; b") && html.contains("x &amp; y") && html.contains("&lt;b&gt;"), "{html}");
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(number), ["0", "12", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn figures_have_three_digits_that_count() {
        assert_eq!([1234.5, 99.96, 9.876, 0.5, f64::NAN].map(figure), ["1,235", "100.0", "9.88", "0.50", "-"]);
    }
}
