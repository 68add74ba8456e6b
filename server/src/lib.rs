//! Riverlog server.
