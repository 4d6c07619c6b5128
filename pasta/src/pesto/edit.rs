//! Changes of what is forwarded, made on a copy.

use crate::ports::spec::Spec;
use crate::ports::{PortOption, option_of, requested};
use pasta_ipc::control::RequestedForward;
use pasta_ipc::port_forward::Direction;

/// All lists of one direction, by the name that the C program gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Into the namespace.
    Host,
    /// Out of it.
    Splice,
}

impl Table {
    /// The one that `option` is for.
    pub fn of(option: PortOption) -> Self {
        match option.direction() {
            Direction::Inbound => Self::Host,
            Direction::Outbound => Self::Splice,
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    ///
    /// A line that says that there is none.
    pub fn of_name(name: &str) -> Result<Self, String> {
        match name {
            "HOST" => Ok(Self::Host),
            "SPLICE" => Ok(Self::Splice),
            _ => Err(format!("there is no table '{name}' (HOST or SPLICE)")),
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "HOST",
            Self::Splice => "SPLICE",
        }
    }

    /// Whether `forward` is in it.
    pub fn has(self, forward: &RequestedForward) -> bool {
        Self::of(option_of(forward)) == self
    }
}

/// One step of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Empty a table because it was asked for.
    Clear(Table),
    /// Empty a table because what follows replaces it.
    Replace(Table),
    /// Add ports.
    Add(PortOption, Spec),
    /// Delete ports, exactly as they were added.
    Delete(PortOption, Spec),
}

/// Makes the changes on `forwards`.
///
/// # Errors
///
/// A line that says which one makes no sense.
pub fn apply(
    mut forwards: Vec<RequestedForward>,
    edits: &[Edit],
) -> Result<Vec<RequestedForward>, String> {
    for edit in edits {
        match edit {
            Edit::Clear(table) | Edit::Replace(table) => forwards.retain(|it| !table.has(it)),
            Edit::Add(option, spec) => {
                for forward in requested(*option, spec).map_err(|error| error.to_string())? {
                    if forwards.contains(&forward) {
                        return Err(format!("conflict: '{forward}' is there already"));
                    }
                    forwards.push(forward);
                }
            }
            Edit::Delete(option, spec) => {
                for forward in requested(*option, spec).map_err(|error| error.to_string())? {
                    let place = forwards.iter().position(|it| *it == forward);
                    let place = place.ok_or_else(|| format!("'{forward}' is not found"))?;
                    forwards.remove(place);
                }
            }
        }
    }
    Ok(forwards)
}
