//! Plain tables: columns aligned, numbers to the right.

/// A table that is being made.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that hold text, and are aligned to the left.
    text: Vec<usize>,
}

impl Table {
    /// A table with this heading. Columns are of numbers, but for those named in `text`.
    pub(crate) fn new(heading: &[&str], text: &[usize]) -> Self {
        Self { rows: vec![heading.iter().map(ToString::to_string).collect()], text: text.to_vec() }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether nothing stands under the heading.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as lines, with a rule under the heading.
    pub(crate) fn lines(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut lines = String::new();
        for (index, row) in self.rows.iter().enumerate() {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                if self.text.contains(&column) { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
            });
            lines.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
            lines.push('\n');
            if index == 0 {
                let rules: Vec<String> = widths.iter().map(|&width| "-".repeat(width)).collect();
                lines.push_str(&rules.join("  "));
                lines.push('\n');
            }
        }
        lines
    }
}

/// A number with its thousands apart.
pub(crate) fn number(value: u64) -> String {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_to_the_right_and_text_to_the_left() {
        let mut table = Table::new(&["row", "uses", "verdict"], &[0, 2]);
        table.row(vec!["mix".into(), number(1234), "fine".into()]);
        table.row(vec!["bystander".into(), number(7), "x".into()]);
        assert_eq!(
            table.lines(),
            "row         uses  verdict\n\
             ---------  -----  -------\n\
             mix        1,234  fine\n\
             bystander      7  x\n"
        );
    }

    #[test]
    fn thousands_are_apart() {
        assert_eq!([0, 12, 999, 1000, 1_234_567].map(number), ["0", "12", "999", "1,000", "1,234,567"]);
    }
}
