//! Ports as users write them.

/// A port setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Port {
    /// Written `0`.
    NotSet,
    /// Written `-1`.
    Free,
    /// Any other.
    Fixed(u16),
}

impl Port {
    /// The meaning of `number`, which the caller has checked to be -1 to 65535.
    #[must_use]
    pub fn of(number: i64) -> Self {
        match u16::try_from(number) {
            Ok(0) => Self::NotSet,
            Ok(port) => Self::Fixed(port),
            Err(_) => Self::Free,
        }
    }

    /// The port to bind for clients, 0 for a free one.
    #[must_use]
    pub fn for_clients(self) -> u16 {
        match self {
            Self::NotSet => 4222,
            Self::Free => 0,
            Self::Fixed(port) => port,
        }
    }

    /// The port to bind for monitoring, 0 for a free one; `None` when it is off.
    #[must_use]
    pub fn for_monitoring(self) -> Option<u16> {
        match self {
            Self::NotSet => None,
            Self::Free => Some(0),
            Self::Fixed(port) => Some(port),
        }
    }
}
