//! Operations that are known but not offered.

use super::super::errors::{self, ApiError, not_supported_by_consumer, not_supported_by_stream};
use super::route::Operation;

/// Why the operation is refused: this is one server, or it is not built yet.
pub(crate) fn refusal(operation: Operation) -> ApiError {
    match operation {
        Operation::StreamSnapshot => not_supported_by_stream("a stream snapshot"),
        Operation::StreamRestore => not_supported_by_stream("restoring a stream"),
        Operation::ConsumerReset => not_supported_by_consumer("a consumer reset"),
        Operation::ConsumerUnpin => not_supported_by_consumer("a priority policy"),
        _ => errors::CLUSTER_REQUIRED,
    }
}
