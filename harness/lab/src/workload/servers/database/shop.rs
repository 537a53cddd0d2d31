//! The table of a MariaDB and the SQL of its users, who look up the orders of a customer.
//!
//! With the index, a query reads one order. Without it, it reads all of them, in a time proportional to their number.
//! Reading waits as for a disk instead of keeping a processor busy: queries side by side take no longer than one.

use std::fmt::Write as _;
use std::io;
use std::time::Duration;

use relapse_detectors::time::{limit, span};
use relapse_kernel::NetNs;
use relapse_model::Query;
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::{Database, mysql};

/// A user without a password.
pub const USER: &str = "app";
/// The database.
pub const NAME: &str = "shop";

/// Statements that make the user and the table, one on each line; repeating them changes nothing. Reading the orders
/// one after another waits a millisecond at every tenth.
pub const SETUP: &str = "\
CREATE DATABASE IF NOT EXISTS shop;
CREATE USER IF NOT EXISTS app@'%';
GRANT ALL ON *.* TO app@'%';
USE shop;
CREATE TABLE IF NOT EXISTS orders (id INT PRIMARY KEY, customer INT NOT NULL, amount INT NOT NULL, \
INDEX by_customer (customer)) SELECT seq AS id, seq AS customer, 100 AS amount FROM seq_1_to_2000;
CREATE DEFINER=app@'%' FUNCTION IF NOT EXISTS fetched (id INT) RETURNS BOOL RETURN id MOD 10 OR SLEEP(0.001) = 0;
";

/// Bytes of a query besides its text: the packet's header and the command.
const HEADER: u32 = 5;
/// Orders in the table.
const ORDERS: std::ops::RangeInclusive<u64> = 10..=10_000_000;
/// Scans of which the fastest counts: a busy machine only makes them slower.
const SCANS: u32 = 3;
/// Attempts to find the number of orders.
const ROUNDS: u32 = 8;
/// Maximum difference of a scan from the wanted time.
const TOLERANCE: f64 = 0.1;
/// Shorter differences are noise.
const RESOLUTION: Duration = Duration::from_millis(2);

/// A query in SQL, with its sizes. A comment makes it long enough; it is never cut.
#[must_use]
pub fn sql(query: &Query) -> String {
    let mut text = select(query, "");
    let missing = query.request.saturating_sub(HEADER) as usize;
    if let Some(dots) = missing.checked_sub(text.len() + 4) {
        let _ = write!(text, "/*{}*/", ".".repeat(dots));
    }
    text
}

fn select(query: &Query, hint: &str) -> String {
    let sleep = match query.takes.as_secs_f64() {
        0.0 => String::new(),
        seconds => format!(",SLEEP({seconds})"),
    };
    let response = query.response;
    format!("SELECT RPAD(amount,{response},'.'){sleep} FROM orders{hint} WHERE fetched(id) AND customer<=>1")
}

/// How a query reads orders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Access {
    /// `EXPLAIN`'s type: `ref` with the index, `ALL` without.
    pub kind: String,
    /// The estimated number of orders it reads.
    pub rows: String,
}

/// A session that administers the tables and does not appear in the slow-query log.
#[derive(Debug)]
pub struct Session(TcpStream);

/// The query that is explained and timed.
const TIMED: Query = Query { request: 120, response: 900, takes: Duration::ZERO };

impl Session {
    /// Opens it in the namespace of the server.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn open(ns: &NetNs, database: Database) -> io::Result<Self> {
        let failure = |failure: relapse_model::Failure| io::Error::other(format!("log in: {failure}"));
        let mut session = Self(database.open(ns).await.map_err(failure)?);
        session.run("SET SESSION slow_query_log = OFF").await?;
        Ok(session)
    }

    /// Runs a statement.
    ///
    /// # Errors
    /// The error of the connection, or the server's message.
    pub async fn run(&mut self, statement: &str) -> io::Result<Vec<mysql::Row>> {
        mysql::query(&mut self.0, statement).await
    }

    /// Drops the index.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn drop_index(&mut self) -> io::Result<()> {
        self.run("DROP INDEX by_customer ON orders").await.map(|_| ())
    }

    /// Creates the index unless it exists.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn create_index(&mut self) -> io::Result<()> {
        self.run("CREATE INDEX IF NOT EXISTS by_customer ON orders (customer)").await.map(|_| ())
    }

    /// How a query would read orders now.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn explain(&mut self) -> io::Result<Access> {
        let rows = self.run(&format!("EXPLAIN {}", sql(&TIMED))).await?;
        // id, select_type, table, type, possible_keys, key, key_len, ref, rows, Extra.
        let field = |row: &mysql::Row, number: usize| row.get(number).cloned().flatten().unwrap_or_default();
        let orders = rows.iter().find(|row| field(row, 2) == "orders");
        let orders = orders.ok_or_else(|| io::Error::other("EXPLAIN does not mention orders"))?;
        Ok(Access { kind: field(orders, 3), rows: field(orders, 8) })
    }

    /// The time a query takes.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub async fn time(&mut self) -> io::Result<Duration> {
        self.time_with("").await
    }

    async fn time_with(&mut self, hint: &str) -> io::Result<Duration> {
        let begin = Instant::now();
        self.run(&select(&TIMED, hint)).await?;
        Ok(begin.elapsed())
    }

    /// Adds or removes orders until a query takes `wanted` without the index, which is kept. Returns their number.
    ///
    /// # Errors
    /// As for [`Self::run`]; or if no number of orders takes that time.
    pub async fn fit(&mut self, wanted: Duration) -> io::Result<u64> {
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            let have = self.run("SELECT COUNT(*) FROM orders").await?;
            let have: u64 = have.iter().flatten().flatten().find_map(|count| count.parse().ok()).unwrap_or_default();
            let mut took = Duration::MAX;
            for _ in 0..SCANS {
                took = took.min(self.time_with(" IGNORE INDEX(by_customer)").await?);
            }
            let ratio = took.as_secs_f64() / wanted.as_secs_f64();
            if (ratio - 1.0).abs() <= TOLERANCE || took.abs_diff(wanted) <= RESOLUTION {
                return Ok(have);
            }
            seen.push(format!("{have} orders take {}", span(took)));
            #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            let orders = ((have as f64 / ratio) as u64).clamp(*ORDERS.start(), *ORDERS.end());
            self.fill(have, orders).await?;
        }
        Err(io::Error::other(format!("no number of orders takes {}: {}", limit(wanted), seen.join(", "))))
    }

    async fn fill(&mut self, have: u64, orders: u64) -> io::Result<()> {
        // Deleted rows would slow scans down until they are purged.
        let have = if orders < have {
            self.run("TRUNCATE orders").await?;
            0
        } else {
            have
        };
        if orders > have {
            let from = have + 1;
            self.run(&format!("INSERT INTO orders SELECT seq, seq, 100 FROM seq_{from}_to_{orders}")).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sql_has_the_sizes_and_the_time_of_its_query() {
        let query = Query { request: 300, response: 77, takes: Duration::from_millis(50) };
        let text = sql(&query);
        assert_eq!(text.len(), 295);
        assert!(text.starts_with("SELECT RPAD(amount,77,'.'),SLEEP(0.05) FROM orders "), "{text}");
        assert!(text.ends_with("..*/"), "{text}");
    }

    #[test]
    fn a_query_too_small_for_its_text_is_not_cut() {
        let text = sql(&Query { request: 1, response: 900, takes: Duration::ZERO });
        assert!(text.ends_with("customer<=>1"), "{text}");
        assert_eq!(sql(&Query { request: 80, response: 900, takes: Duration::ZERO }), text);
    }

    #[test]
    fn statements_of_the_setup_are_single_lines() {
        assert!(SETUP.lines().all(|line| line.ends_with(';')), "{SETUP}");
    }
}
