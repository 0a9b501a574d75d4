//! The figures, as a table for people and as JSON for programs.

use serde_json::{Value, json};

#[derive(Default)]
pub(crate) struct Table(Vec<Row>);

struct Row {
    what: String,
    unit: &'static str,
    figure: f64,
    bound: Bound,
}

/// What a figure is to be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    None,
    AtLeast(f64),
    AtMost(f64),
}

impl Bound {
    fn is_met(self, figure: f64) -> Option<bool> {
        match self {
            Self::None => None,
            Self::AtLeast(least) => Some(figure >= least),
            Self::AtMost(most) => Some(figure <= most),
        }
    }
}

impl Table {
    pub(crate) fn add(&mut self, what: &str, unit: &'static str, figure: f64, bound: Bound) {
        self.0.push(Row {
            what: what.to_owned(),
            unit,
            figure,
            bound,
        });
    }

    pub(crate) fn print(&self) {
        println!("| figure | measured | bound | met |\n|---|---|---|---|");
        for row in &self.0 {
            let bound = match row.bound {
                Bound::None => String::new(),
                Bound::AtLeast(least) => format!("at least {}", number(least)),
                Bound::AtMost(most) => format!("at most {}", number(most)),
            };
            let met = match row.bound.is_met(row.figure) {
                None => "",
                Some(true) => "yes",
                Some(false) => "**no**",
            };
            let figure = number(row.figure);
            println!("| {} | {figure} {} | {bound} | {met} |", row.what, row.unit);
        }
    }

    pub(crate) fn json(&self) -> String {
        let row = |row: &Row| {
            let (least, most) = match row.bound {
                Bound::None => (None, None),
                Bound::AtLeast(least) => (Some(least), None),
                Bound::AtMost(most) => (None, Some(most)),
            };
            json!({
                "what": row.what, "unit": row.unit, "figure": row.figure,
                "at_least": least, "at_most": most, "met": row.bound.is_met(row.figure),
            })
        };
        let rows: Value = self.0.iter().map(row).collect();
        format!("{rows:#}\n")
    }
}

pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Three digits, or all of a large number.
fn number(figure: f64) -> String {
    if figure >= 100.0 {
        format!("{figure:.0}")
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.2}")
    }
}
