//! The HTTP server, and in it the application: for each request it carries out the steps of its flow, then responds.
//!
//! The status is 200, or 502 if a part failed. `Server-Timing` (W3C) lists the completed parts with their times and, as
//! description, their failures; the client reads it with [`read_timing`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use hyper::body::Bytes;
use hyper::{Method, StatusCode};
use relapse_kernel::NetNs;
use relapse_model::{Failure, FlowPlan, PartId, PartPlan, Step, Work};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};

use super::database::Database;
use super::http::{self, Answer};
use crate::job::Job;
use crate::workload::client::{Home, Serve};
use crate::workload::{PartTime, namespace, sockets, stub};

/// W3C Server Timing, section 3.1.
pub const SERVER_TIMING: &str = "server-timing";

/// The share of the client's timeout after which the application gives up, so that its response still arrives.
pub const PATIENCE: f64 = 0.9;

/// The server of `http` and `call` flows, and of parts over HTTP.
pub const SERVE: Serve = Serve { protocol: Some("http"), run: |listener, home| Box::pin(serve(listener, home)) };

async fn serve(listener: TcpListener, home: Home) {
    let app = Arc::new(App { home, kept: Mutex::default() });
    http::serve_with(listener, move |request| {
        let app = Arc::clone(&app);
        async move {
            if let Some(status) = app.home.errors.next() {
                return http::answer(status, Bytes::new(), None);
            }
            match app.answer(request.uri().path()).await {
                Some(answer) => answer,
                None => http::bytes(request).await,
            }
        }
    })
    .await;
}

/// The path at which an application carries out the steps of a flow.
#[must_use]
pub fn path(flow: &FlowPlan) -> String {
    format!("/{}", flow.name)
}

/// An application at one place, for all flows with steps.
struct App {
    home: Home,
    /// Idle connections, by flow and part.
    kept: Mutex<HashMap<(usize, PartId), Vec<Connection>>>,
}

/// A connection that a part opened.
enum Connection {
    Http(http::Connection),
    Database(Database, TcpStream),
}

impl Connection {
    fn is_open(&self) -> bool {
        match self {
            Self::Http(connection) => connection.is_open(),
            Self::Database(_, stream) => {
                stream.try_read(&mut [0]).is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
            }
        }
    }
}

impl App {
    /// The response to a request; `None` if the path belongs to no flow.
    async fn answer(&self, wanted: &str) -> Option<Answer> {
        let number = self.home.flows.iter().position(|flow| !flow.parts.is_empty() && path(flow) == wanted)?;
        let flow = &self.home.flows[number];
        let request = Request {
            app: self,
            number,
            flow,
            ns: namespace(self.home.cluster.as_ref(), self.home.place),
            deadline: Instant::now() + flow.timeout.mul_f64(PATIENCE),
            open: flow.parts.iter().map(|_| tokio::sync::Mutex::default()).collect(),
            times: Mutex::default(),
        };
        let result = request.steps(&flow.steps).await;
        let Request { open, times, .. } = request;
        let times = times.into_inner().unwrap_or_else(PoisonError::into_inner);
        let timing = write_timing(flow, &times);
        let (status, body) = match result {
            Ok(()) => {
                self.keep(number, open);
                (StatusCode::OK, Bytes::from(vec![b'.'; flow.response as usize]))
            }
            Err(_) => (StatusCode::BAD_GATEWAY, Bytes::from(timing.clone())),
        };
        Some(http::answer(status, body, Some((SERVER_TIMING, &timing))))
    }

    /// Keeps the connections of a successful request, if their parts say so.
    fn keep(&self, flow: usize, open: Vec<tokio::sync::Mutex<Option<Connection>>>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        for (number, connection) in open.into_iter().enumerate() {
            if let Some(connection) = connection.into_inner().filter(|_| self.home.flows[flow].parts[number].keep) {
                kept.entry((flow, PartId(number))).or_default().push(connection);
            }
        }
    }

    /// A kept connection that is still open.
    fn kept(&self, flow: usize, part: PartId) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let resting = kept.get_mut(&(flow, part))?;
        std::iter::from_fn(|| resting.pop()).find(Connection::is_open)
    }
}

/// A request in progress.
struct Request<'a> {
    app: &'a App,
    /// Index of the flow.
    number: usize,
    flow: &'a FlowPlan,
    ns: NetNs,
    deadline: Instant,
    /// The connection of each part, if other parts use it or it is kept.
    open: Vec<tokio::sync::Mutex<Option<Connection>>>,
    times: Mutex<Vec<PartTime>>,
}

impl Request<'_> {
    /// Ends at the first failure and cancels the steps beside it.
    fn steps<'s>(&'s self, step: &'s Step) -> Job<'s, Result<(), Failure>> {
        Box::pin(async move {
            match step {
                Step::Part(id) => self.part(*id).await?,
                Step::InTurn(steps) => {
                    for step in steps {
                        self.steps(step).await?;
                    }
                }
                Step::Together(steps) => {
                    try_join_all(steps.iter().map(|step| self.steps(step))).await?;
                }
            }
            Ok(())
        })
    }

    async fn part(&self, id: PartId) -> Result<(), Failure> {
        let part = &self.flow.parts[id.0];
        let begin = Instant::now();
        let deadline = part.timeout.map_or(self.deadline, |timeout| self.deadline.min(begin + timeout));
        let result = self.work(id, part, deadline).await;
        let time = PartTime { part: id, took: begin.elapsed(), failure: result.err() };
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
        result
    }

    async fn work(&self, id: PartId, part: &PartPlan, deadline: Instant) -> Result<(), Failure> {
        let kept = if part.keep { self.app.kept(self.number, id) } else { None };
        let mut connection = match kept {
            Some(kept) => Some(kept),
            None if part.connects() => Some(self.connect(part, deadline).await?),
            None => None,
        };
        let asking = async {
            match &part.work {
                Work::Connect => Ok(()),
                Work::Get { response } => get(&mut connection, *response).await,
                Work::Transfer { bytes, upload, times } => {
                    for _ in 0..*times {
                        if *upload {
                            put(&mut connection, *bytes).await?;
                        } else {
                            get(&mut connection, *bytes).await?;
                        }
                    }
                    Ok(())
                }
                Work::Queries { over, count, query, think } => {
                    let mut lent = match over {
                        Some(other) => Some(self.open[other.0].lock().await),
                        None => None,
                    };
                    let connection = lent.as_deref_mut().unwrap_or(&mut connection);
                    let Some(Connection::Database(database, stream)) = connection else { return Err(Failure::Any) };
                    for number in 0..*count {
                        if number > 0 && !think.is_zero() {
                            sleep(*think).await;
                        }
                        database.ask(stream, query).await?;
                    }
                    Ok(())
                }
            }
        };
        timeout_at(deadline, asking).await.unwrap_or(Err(Failure::Timeout))?;
        if part.keep || matches!(part.work, Work::Connect) {
            *self.open[id.0].lock().await = connection;
        }
        Ok(())
    }

    /// Connects to the part's server; a name is looked up.
    async fn connect(&self, part: &PartPlan, deadline: Instant) -> Result<Connection, Failure> {
        let home = &self.app.home;
        let found = stub::address(home.cluster.as_ref(), &self.ns, home.place, part.to, None);
        let address = timeout_at(deadline, found).await.unwrap_or(Err(Failure::NameError))?;
        let peer = (address, part.port).into();
        let connecting = async {
            Ok(match part.work {
                Work::Connect | Work::Queries { .. } => {
                    let database = Database::at(home.cluster.as_ref(), peer);
                    Connection::Database(database, database.open(&self.ns).await?)
                }
                Work::Get { .. } | Work::Transfer { .. } => {
                    Connection::Http(http::Connection::open(sockets::connect(&self.ns, peer).await?).await?)
                }
            })
        };
        timeout_at(deadline, connecting).await.unwrap_or(Err(Failure::Timeout))
    }
}

async fn get(connection: &mut Option<Connection>, bytes: u32) -> Result<(), Failure> {
    let Some(Connection::Http(connection)) = connection else { return Err(Failure::Any) };
    let response = connection.send(Method::GET, &http::bytes_path(bytes), Bytes::new()).await?;
    http::whole(response.status(), response.body(), bytes)
}

async fn put(connection: &mut Option<Connection>, bytes: u32) -> Result<(), Failure> {
    let Some(Connection::Http(connection)) = connection else { return Err(Failure::Any) };
    let body = Bytes::from(vec![b'.'; bytes as usize]);
    let response = connection.send(Method::PUT, &http::bytes_path(bytes), body).await?;
    if response.status().is_success() { Ok(()) } else { Err(Failure::Status(response.status().as_u16())) }
}

/// `queries;dur=5203.112, upload;dur=61.004;desc="timeout"`; milliseconds.
fn write_timing(flow: &FlowPlan, times: &[PartTime]) -> String {
    let entry = |time: &PartTime| {
        let failed = time.failure.map(|failure| format!(";desc=\"{failure}\"")).unwrap_or_default();
        format!("{};dur={:.3}{failed}", flow.parts[time.part.0].name, time.took.as_secs_f64() * 1e3)
    };
    times.iter().map(entry).collect::<Vec<_>>().join(", ")
}

/// The parts in a `Server-Timing` header, in the order of completion; entries of unknown parts are ignored.
#[must_use]
pub fn read_timing(flow: &FlowPlan, timing: &str) -> Vec<PartTime> {
    let entry = |text: &str| {
        let mut settings = text.split(';').map(str::trim);
        let name = settings.next()?;
        let part = PartId(flow.parts.iter().position(|part| part.name == name)?);
        let settings: HashMap<&str, &str> = settings.filter_map(|setting| setting.split_once('=')).collect();
        let ms: f64 = settings.get("dur")?.parse().ok()?;
        let failure = settings.get("desc").map(|how| Failure::parse(how.trim_matches('"')).unwrap_or_default());
        Some(PartTime { part, took: Duration::try_from_secs_f64(ms / 1e3).ok()?, failure })
    };
    timing.split(',').filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use relapse_model::{Place, PodId, Target};

    use super::*;

    fn flow() -> FlowPlan {
        let place = |number| Place::Pod(PodId(number));
        let part = |name: &str| PartPlan {
            name: name.to_owned(),
            kind: "get",
            to: Target::Place(place(2)),
            port: 80,
            work: Work::Get { response: 1 },
            keep: false,
            timeout: None,
        };
        let mut flow = FlowPlan::new("call".to_owned(), "call", place(0), Target::Place(place(1)));
        flow.parts = vec![part("api"), part("upload")];
        flow
    }

    #[test]
    fn times_and_failures_of_parts_are_read_as_they_were_written() {
        let time = |part, ms, failure| PartTime { part: PartId(part), took: Duration::from_millis(ms), failure };
        let times = [time(1, 61, None), time(0, 5203, Some(Failure::NameError))];
        let written = write_timing(&flow(), &times);
        assert_eq!(written, "upload;dur=61.000, api;dur=5203.000;desc=\"name-error\"");
        assert_eq!(read_timing(&flow(), &written), times);
    }

    #[test]
    fn entries_of_unknown_parts_are_ignored() {
        for timing in ["", "cache;dur=3", "api", "api;dur=soon", "api;dur=-1", ";;,,"] {
            assert_eq!(read_timing(&flow(), timing), [], "{timing}");
        }
        assert_eq!(read_timing(&flow(), "cache;desc=\"hit\", api ; dur=2").len(), 1);
    }
}
