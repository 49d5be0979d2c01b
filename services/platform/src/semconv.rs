//! OpenTelemetry attribute names: the one place that spells them.
//!
//! The messaging and RPC conventions are still in development, and v1.45 renames `messaging.system`; a change
//! that follows a rename is made here. `tracing` accepts these constants as field names: `info_span!("x", {
//! semconv::RPC_METHOD } = m)`.
//!
//! Deliberately absent: any attribute that could carry personal data.

/// Which messaging system; always [`KAFKA`].
pub const MESSAGING_SYSTEM: &str = "messaging.system";
/// The value of [`MESSAGING_SYSTEM`].
pub const KAFKA: &str = "kafka";
/// Topic.
pub const MESSAGING_DESTINATION_NAME: &str = "messaging.destination.name";
/// Partition, as text.
pub const MESSAGING_DESTINATION_PARTITION_ID: &str = "messaging.destination.partition.id";
/// The system's own name of the operation, such as `poll` or `send`.
pub const MESSAGING_OPERATION_NAME: &str = "messaging.operation.name";
/// One of `send`, `receive`, `process`, `settle`, `create`.
pub const MESSAGING_OPERATION_TYPE: &str = "messaging.operation.type";
/// `ce_id`.
pub const MESSAGING_MESSAGE_ID: &str = "messaging.message.id";
/// Messages in a batch.
pub const MESSAGING_BATCH_MESSAGE_COUNT: &str = "messaging.batch.message_count";
/// Consumer group.
pub const MESSAGING_CONSUMER_GROUP_NAME: &str = "messaging.consumer.group.name";
/// Record offset.
pub const MESSAGING_KAFKA_OFFSET: &str = "messaging.kafka.offset";
/// Record key: an aggregate id.
pub const MESSAGING_KAFKA_MESSAGE_KEY: &str = "messaging.kafka.message.key";

/// Which RPC system; always [`GRPC`].
pub const RPC_SYSTEM: &str = "rpc.system.name";
/// The value of [`RPC_SYSTEM`].
pub const GRPC: &str = "grpc";
/// Fully qualified method, `package.Service/Method`.
pub const RPC_METHOD: &str = "rpc.method";
/// Canonical status word, such as `UNAVAILABLE`.
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// Kind of failure; the status word here.
pub const ERROR_TYPE: &str = "error.type";
/// HTTP method.
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// Pattern of the route, never the path itself.
pub const HTTP_ROUTE: &str = "http.route";
/// HTTP status.
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";

/// Host that is called.
pub const SERVER_ADDRESS: &str = "server.address";
/// Port that is called.
pub const SERVER_PORT: &str = "server.port";

/// Name of the database system.
pub const DB_SYSTEM_NAME: &str = "db.system.name";
/// The value of [`DB_SYSTEM_NAME`].
pub const POSTGRESQL: &str = "postgresql";
/// Operation, such as `group commit`.
pub const DB_OPERATION_NAME: &str = "db.operation.name";
/// Statements or rows in a batch.
pub const DB_OPERATION_BATCH_SIZE: &str = "db.operation.batch.size";

/// Ours: the bounded context that a span belongs to.
pub const CONTEXT: &str = "holdfast.context";
/// Ours: for whom a call is made; see [`crate::grpc::CALLER_HEADER`].
pub const CALLER: &str = "holdfast.caller";
/// Ours: asks the sampler to keep the trace; see [`crate::telemetry::sampling`].
pub const KEEP: &str = "holdfast.keep";
/// Ours: the flow that a span belongs to; also the field from which log lines take it.
pub const CORRELATION_ID: &str = "correlation_id";
