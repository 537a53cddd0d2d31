//! What all tables of text look like.

use comfy_table::{Attribute, Cell, LineStyle, Table, TableStyle};

use crate::paint::Page;

pub(crate) fn plain_table(page: Page) -> Table {
    let mut table = Table::new();
    let rule = LineStyle::none().fill('─').junction('─');
    table.load_style(TableStyle::new().header_separator(rule).bottom_border(rule));
    // Whether there is a terminal was decided before; the table must not ask again.
    if page.color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table
}

pub(crate) fn head(text: &str, page: Page) -> Cell {
    let cell = Cell::new(text);
    if page.color { cell.add_attribute(Attribute::Bold) } else { cell }
}
