package v1alpha1

// The condition types of a WebhookSubscription. The manager sets Accepted and Ready, the dispatcher Programmed and
// EndpointHealthy.
const (
	// ConditionAccepted is True if the spec is valid and every Secret it names was found.
	ConditionAccepted = "Accepted"
	// ConditionProgrammed is True if every live dispatcher has this generation in its routing table.
	ConditionProgrammed = "Programmed"
	// ConditionEndpointHealthy tells how the endpoint answers: Unknown before the first attempt.
	ConditionEndpointHealthy = "EndpointHealthy"
	// ConditionReady is True if an event published now will be delivered: Accepted, Programmed and not Gone. It is
	// also the one of a WebhookDispatcher that says its pods are up.
	ConditionReady = "Ready"
)

// Reasons of Accepted. Each but Accepted itself leaves deliveries waiting until someone mends the cause.
const (
	ReasonAccepted             = "Accepted"
	ReasonInvalidSpec          = "InvalidSpec"
	ReasonInvalidURL           = "InvalidURL"
	ReasonHTTPNotAllowed       = "HTTPNotAllowed"
	ReasonUnknownResource      = "UnknownResource"
	ReasonInvalidPattern       = "InvalidPattern"
	ReasonInvalidHeader        = "InvalidHeader"
	ReasonSecretNotFound       = "SecretNotFound"
	ReasonSecretKeyMissing     = "SecretKeyMissing"
	ReasonSecretKeyInvalid     = "SecretKeyInvalid"
	ReasonConfigMapNotFound    = "ConfigMapNotFound"
	ReasonConfigMapKeyMissing  = "ConfigMapKeyMissing"
	ReasonCertificatesInvalid  = "CertificatesInvalid" // what spec.tls names is not certificates in PEM
	ReasonDispatcherNotFound   = "DispatcherNotFound"
	ReasonNamespaceNotSelected = "NamespaceNotSelected"
	ReasonRoutingTableFull     = "RoutingTableFull"
	ReasonQuotaExceeded        = "QuotaExceeded"
)

// Reasons of Programmed, EndpointHealthy and Ready.
const (
	ReasonProgrammed     = "Programmed"
	ReasonPending        = "Pending" // the dispatcher has not said yet that it has this generation
	ReasonNoAttempts     = "NoAttempts"
	ReasonDelivering     = "Delivering"
	ReasonLastFailed     = "LastAttemptFailed"
	ReasonCircuitOpen    = "CircuitOpen" // ten or more attempts in a row failed
	ReasonGone           = "Gone"        // the endpoint answered 410; a change of the spec, or of a Secret's value, resumes
	ReasonSuspended      = "Suspended"
	ReasonReady          = "Ready"
	ReasonNotReady       = "NotReady"
	ReasonWaiting        = "Waiting" // not accepted: deliveries wait, events go on matching by the last valid spec
	ReasonStoreImmutable = "StoreImmutable"
)

// ConditionStoreReady tells whether a WebhookDispatcher's store takes events. Its pods set it: they alone know why not.
const ConditionStoreReady = "StoreReady"

// Reasons of StoreReady.
const (
	ReasonStoreReady          = "StoreReady"
	ReasonDatabaseUnreachable = "DatabaseUnreachable" // nobody answers, or the answer is that this user may not
	ReasonDatabaseTooOld      = "DatabaseTooOld"      // the server is older than what the store needs
	ReasonSchemaNewer         = "SchemaNewer"         // a newer Event Flow has migrated the database
	ReasonSchemaNotMigrated   = "SchemaNotMigrated"   // the schema could not be made or brought up to date
	ReasonStoreFull           = "StoreFull"           // less than the reserve is free
	ReasonStoreReadOnly       = "StoreReadOnly"       // the database takes no writes, as a standby does
)
