//! Which selectors an expression needs for a result.

/// Of which selectors something must be left. Selectors are given by their index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needs {
    /// A constant.
    Nothing,
    Selector(usize),
    All(Vec<Needs>),
    /// Operands of `or`, or of an operator that fills in.
    Any(Vec<Needs>),
    /// `unless`: has the result of the first where the second has none.
    Unless(Box<Needs>, Box<Needs>),
    /// `absent(...)`: has a result if there is nothing within.
    Absent(Box<Needs>),
    /// `scalar(...)`: NaN if there is nothing within.
    Number(Box<Needs>),
}

/// What is known of selectors without a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gone {
    /// Nowhere is there such a series: its absence is a fact, and `absent` has a result.
    Nowhere,
    /// There is none in the recordings, and may be one elsewhere: neither presence nor absence is known, and a constant
    /// that stands in (`or vector(0)`) decides nothing.
    Unseen,
}

impl Needs {
    /// The selectors that leave the expression without a result that counts; `None` if it may have one.
    pub fn gone(&self, how: Gone, gone: &impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        match self {
            Self::Nothing => None,
            Self::Selector(index) => gone(*index).then(|| vec![*index]),
            Self::All(parts) => {
                let found: Vec<usize> = parts.iter().filter_map(|part| part.gone(how, gone)).flatten().collect();
                (!found.is_empty()).then_some(found)
            }
            Self::Any(parts) => {
                let counts = |part: &&Self| how == Gone::Nowhere || !part.is_constant();
                let found: Option<Vec<_>> = parts.iter().filter(counts).map(|part| part.gone(how, gone)).collect();
                found.map(|found| found.concat()).filter(|found| !found.is_empty())
            }
            Self::Unless(of, without) => {
                // Whether what was not recorded is absent is not known.
                let without = without.gone(how, gone).filter(|_| how == Gone::Unseen);
                let found = [of.gone(how, gone), without].into_iter().flatten().flatten().collect::<Vec<_>>();
                (!found.is_empty()).then_some(found)
            }
            Self::Absent(within) | Self::Number(within) => match how {
                Gone::Nowhere => None,
                Gone::Unseen => within.gone(how, gone),
            },
        }
    }

    /// The selectors that give `absent` at the top a result, for ever.
    pub fn always(&self, gone: &impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        match self {
            Self::Absent(within) => within.gone(Gone::Nowhere, gone),
            Self::Any(parts) => parts.iter().find_map(|part| part.always(gone)),
            _ => None,
        }
    }

    /// The selectors without which an `absent` or `unless` somewhere has a result.
    pub fn absent_of(&self, gone: &impl Fn(usize) -> bool) -> Option<Vec<usize>> {
        match self {
            Self::Nothing | Self::Selector(_) => None,
            Self::All(parts) | Self::Any(parts) => parts.iter().find_map(|part| part.absent_of(gone)),
            Self::Unless(of, without) => {
                of.absent_of(gone).or_else(|| without.gone(Gone::Unseen, gone)).or_else(|| without.absent_of(gone))
            }
            Self::Absent(within) => within.gone(Gone::Unseen, gone),
            Self::Number(within) => within.absent_of(gone),
        }
    }

    fn is_constant(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Selector(_) => false,
            Self::All(parts) | Self::Any(parts) => parts.iter().all(Self::is_constant),
            Self::Absent(within) | Self::Number(within) | Self::Unless(within, _) => within.is_constant(),
        }
    }
}
