//! What rules are graded against: the recordings in the program, or those in a folder.

use std::borrow::Cow;
use std::fs;
use std::path::Path;

use include_dir::{Dir, include_dir};
use relapse_alerts::recording::{Header, Recording};

use crate::cli::Refused;

static SHIPPED: Dir = include_dir!("$CARGO_MANIFEST_DIR/../alerts/recordings");

/// How names of recordings end.
const ENDING: &str = ".series.gz";

/// One recording, still compressed.
pub struct Packed {
    pub name: String,
    pub header: Header,
    bytes: Cow<'static, [u8]>,
}

pub struct Recordings {
    /// In the order of incidents, base scenarios and incidents before their twins.
    pub all: Vec<Packed>,
}

impl Packed {
    fn new(name: String, bytes: Cow<'static, [u8]>) -> Result<Self, String> {
        let header = Header::read(&*bytes).map_err(|e| format!("{name}: {e}"))?;
        Ok(Self { name, header, bytes })
    }

    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The recording with those series whose metric is wanted.
    pub fn read(&self, wanted: impl Fn(&str) -> bool) -> Result<Recording, Refused> {
        Recording::read(&*self.bytes, wanted).map_err(|e| format!("{}: {e}", self.name).into())
    }

    /// As [`relapse_alerts::recording::series_of`].
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Recordings {
    /// Those of a folder, otherwise those in the program.
    pub fn find(folder: Option<&Path>) -> Result<Self, Refused> {
        let mut all = match folder {
            Some(folder) => in_folder(folder)?,
            None => {
                let files = SHIPPED.files().filter_map(|file| Some((file.path().file_name()?.to_str()?, file)));
                let files = files.filter(|(name, _)| name.ends_with(ENDING));
                let read = |(name, file): (&str, &'static include_dir::File<'static>)| {
                    Packed::new(name.to_owned(), Cow::Borrowed(file.contents()))
                };
                files.map(read).collect::<Result<_, _>>()?
            }
        };
        if all.is_empty() {
            let why = match folder {
                Some(folder) => format!("there are no recordings (*{ENDING}) in {}", folder.display()),
                None => "this relapse has no recordings: give a folder with --recordings".to_owned(),
            };
            return Err(why.into());
        }
        all.sort_by(|one, other| key(&one.header).cmp(&key(&other.header)));
        Ok(Self { all })
    }
}

fn key(header: &Header) -> (&str, bool, &str, Option<&str>, &str) {
    (&header.incident, !header.base, &header.scenario, header.control.as_deref(), &header.backend)
}

fn in_folder(folder: &Path) -> Result<Vec<Packed>, Refused> {
    let failed = |e: std::io::Error| format!("--recordings {}: {e}", folder.display());
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.ends_with(ENDING) {
            let bytes = fs::read(&path).map_err(failed)?;
            all.push(Packed::new(path.display().to_string(), Cow::Owned(bytes))?);
        }
    }
    Ok(all)
}
