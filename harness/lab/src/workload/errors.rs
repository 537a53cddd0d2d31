//! Errors that an HTTP server answers with while a fault wants it.

use std::sync::{Arc, Mutex, PoisonError};

use hyper::StatusCode;

/// The status of some answers, and their share in millionths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ErrorShare {
    pub status: StatusCode,
    pub millionths: u32,
}

const WHOLE: u32 = 1_000_000;

/// The errors that an HTTP server answers with, adjustable while it runs.
#[derive(Debug, Clone, Default)]
pub struct Errors(Arc<Mutex<(Option<ErrorShare>, u32)>>);

impl Errors {
    /// The status of the next answer, if that is an error. They are spread evenly.
    #[must_use]
    pub fn next(&self) -> Option<StatusCode> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(ErrorShare { status, millionths }), due) = &mut *state else { return None };
        *due += *millionths;
        let is_due = *due >= WHOLE;
        *due -= if is_due { WHOLE } else { 0 };
        is_due.then_some(*status)
    }

    /// Changes them; `None` for no errors.
    pub fn set(&self, errors: Option<ErrorShare>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (errors, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_spread_evenly() {
        let errors = Errors::default();
        let answers = |millionths| {
            errors.set(Some(ErrorShare { status: StatusCode::NOT_FOUND, millionths }));
            (0..10).map(|_| if errors.next().is_some() { 'e' } else { '.' }).collect::<String>()
        };
        assert_eq!(answers(1_000_000), "eeeeeeeeee");
        assert_eq!(answers(200_000), "....e....e");
        assert_eq!(answers(600_000), ".e.ee.e.ee");
        errors.set(None);
        assert_eq!(errors.next(), None);
    }
}
