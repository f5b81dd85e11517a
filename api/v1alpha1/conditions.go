package v1alpha1

// The condition types. controllers/subscription and controllers/dispatcher decide each of them in one pure function, but
// for EndpointHealthy, FilterHealthy, ScheduleHealthy and TransformHealthy, which the dispatcher's process decides. docs/states.md shows all states.
const (
	// ConditionAccepted is True if the spec is valid and every Secret it names was found.
	ConditionAccepted = "Accepted"
	// ConditionProgrammed is True if every live pod of the dispatcher delivers by this generation of a WebhookSubscription.
	ConditionProgrammed = "Programmed"
	// ConditionFilterHealthy is False if the filter failed for an event within the last minutes; it is there if there is a
	// filter.
	ConditionFilterHealthy = "FilterHealthy"
	// ConditionScheduleHealthy is False if the schedule failed for an event within the last minutes; it is there if there is a
	// schedule.
	ConditionScheduleHealthy = "ScheduleHealthy"
	// ConditionTransformHealthy is False if a request could not be made, or its answer not read, within the last minutes: by
	// recheck, lookup, redact, transform or outcome. It is there if there is one of them.
	ConditionTransformHealthy = "TransformHealthy"
	// ConditionEndpointHealthy says how the endpoint answers: Unknown before the first attempt.
	ConditionEndpointHealthy = "EndpointHealthy"
	// ConditionReady of a WebhookSubscription is True if an event published now would be delivered. That of a
	// WebhookDispatcher is True if it runs as its spec says.
	ConditionReady = "Ready"
	// ConditionAvailable of a WebhookDispatcher is True if it takes events and delivers them, whatever its spec says.
	ConditionAvailable = "Available"
	// ConditionStoreReady reports whether a WebhookDispatcher's store takes events, as its pods say.
	ConditionStoreReady = "StoreReady"
	// ConditionDeliveriesAPIReady of a WebhookDispatcher is True while the cluster serves its deliveries as Kubernetes
	// resources; it is there if spec.deliveriesAPI asks for it.
	ConditionDeliveriesAPIReady = "DeliveriesAPIReady"
	// ConditionComplete of a WebhookReplay is True once all of it was done. It stays so.
	ConditionComplete = "Complete"
	// ConditionSuspended of a WebhookReplay is True while spec.suspend holds it.
	ConditionSuspended = "Suspended"
)

// The condition types by which kstatus, and so Flux and others, tell an object that is in progress from one that failed.
// They are set only while they are True, never both, and never while Ready is True.
const (
	// ConditionReconciling is True while Ready is expected to become True by itself, or with another object.
	ConditionReconciling = "Reconciling"
	// ConditionStalled is True while Ready becomes True only once someone changes something.
	ConditionStalled = "Stalled"
)

// Reasons of Accepted. Each but Accepted and StoreImmutable leaves deliveries waiting until someone mends the cause.
const (
	ReasonAccepted            = "Accepted"
	ReasonInvalidSpec         = "InvalidSpec"
	ReasonInvalidURL          = "InvalidURL"
	ReasonHTTPNotAllowed      = "HTTPNotAllowed"
	ReasonUnknownResource     = "UnknownResource"
	ReasonInvalidPattern      = "InvalidPattern"
	ReasonInvalidHeader       = "InvalidHeader"
	ReasonInvalidFilter       = "InvalidFilter"
	ReasonInvalidSchedule     = "InvalidSchedule"  // spec.schedule
	ReasonInvalidLookup       = "InvalidLookup"    // spec.lookup
	ReasonInvalidTransform    = "InvalidTransform" // spec.transform, or spec.payload's redact and format
	ReasonInvalidAuth         = "InvalidAuth"      // spec.auth; what its Secret holds has the reasons of Secrets
	ReasonInvalidOutcome      = "InvalidOutcome"   // spec.outcome
	ReasonSecretNotFound      = "SecretNotFound"
	ReasonSecretKeyMissing    = "SecretKeyMissing"
	ReasonSecretKeyInvalid    = "SecretKeyInvalid"
	ReasonConfigMapNotFound   = "ConfigMapNotFound"
	ReasonConfigMapKeyMissing = "ConfigMapKeyMissing"
	ReasonCertificatesInvalid = "CertificatesInvalid" // what spec.tls names is not certificates in PEM
	// ReasonClientCertificateInvalid is for one that cannot be parsed, does not belong to its key, or has no use with http.
	ReasonClientCertificateInvalid = "ClientCertificateInvalid"
	ReasonServiceNotFound          = "ServiceNotFound"       // spec.serviceRef
	ReasonServicePortMissing       = "ServicePortMissing"    // the Service has no such port of TCP
	ReasonServiceWithoutAddress    = "ServiceWithoutAddress" // it is headless
	ReasonServiceNotAllowed        = "ServiceNotAllowed"     // it leads out of its namespace, or may
	ReasonHostNotAllowed           = "HostNotAllowed"        // spec.egress.rules of the dispatcher name other hosts for the namespace
	ReasonNotApproved              = "NotApproved"           // no WebhookDestination names the host for the namespace
	ReasonDispatcherNotFound       = "DispatcherNotFound"
	ReasonNamespaceNotSelected     = "NamespaceNotSelected"
	ReasonNamespaceNotGranted      = "NamespaceNotGranted" // the manager may not make dispatchers in this namespace
	ReasonSecretNotAllowed         = "SecretNotAllowed"    // it lacks the label that the manager demands
	ReasonRoutingTableFull         = "RoutingTableFull"
	ReasonQuotaExceeded            = "QuotaExceeded"
	// ReasonStoreImmutable is of Accepted=True: spec.store says what the store cannot become, and that is ignored.
	ReasonStoreImmutable = "StoreImmutable"
)

// Reasons of Programmed, EndpointHealthy, Available and Ready.
const (
	ReasonProgrammed            = "Programmed"
	ReasonPending               = "Pending" // the dispatcher has not said yet that it has this generation; its pods are starting
	ReasonNoAttempts            = "NoAttempts"
	ReasonPulled                = "Pulled"    // the consumer asks for its deliveries: there is no endpoint whose health could be known
	ReasonEvaluated             = "Evaluated" // no evaluation of the filter, or the schedule, failed lately; one that did is its own reason
	ReasonDelivering            = "Delivering"
	ReasonLastFailed            = "LastAttemptFailed"
	ReasonCircuitOpen           = "CircuitOpen" // ten or more attempts in a row failed
	ReasonGone                  = "Gone"        // the endpoint answered 410; a change of the spec, or of a Secret's value, resumes
	ReasonSuspended             = "Suspended"
	ReasonReady                 = "Ready"
	ReasonNotReady              = "NotReady"
	ReasonWaiting               = "Waiting" // not accepted: deliveries wait, events go on matching by the last valid spec
	ReasonAvailable             = "Available"
	ReasonNoPodReady            = "NoPodReady"
	ReasonProgressing           = "Progressing"           // pods of another version are to be replaced
	ReasonDispatcherUnavailable = "DispatcherUnavailable" // the subscription's dispatcher takes and delivers nothing
	ReasonDispatcherSuspended   = "DispatcherSuspended"   // spec.replicas of the subscription's dispatcher is 0
)

// Reasons of StoreReady, and of what the pods report of their store.
const (
	ReasonStoreReady          = "StoreReady"
	ReasonDatabaseUnreachable = "DatabaseUnreachable" // nobody answers, or the answer is that this user may not
	ReasonDatabaseTooOld      = "DatabaseTooOld"      // the server is older than what the store needs
	ReasonSchemaNewer         = "SchemaNewer"         // a newer Event Flow has migrated the database
	ReasonSchemaNotMigrated   = "SchemaNotMigrated"   // the schema could not be made or brought up to date
	ReasonStoreFull           = "StoreFull"           // less than the reserve is free
	ReasonStoreReadOnly       = "StoreReadOnly"       // the database takes no writes, as a standby does
	ReasonStoreLocked         = "StoreLocked"         // another process has the embedded store open
	ReasonStoreDamaged        = "StoreDamaged"        // a file or a record of the embedded store cannot be read
	ReasonStoreNewer          = "StoreNewer"          // a newer Event Flow wrote the embedded store
	ReasonStoreNotOpen        = "StoreNotOpen"        // the embedded store cannot be opened for another reason, such as permissions
)

// Reasons of DeliveriesAPIReady, beside Suspended, Pending and NamespaceNotGranted.
const (
	ReasonServed               = "Served"               // the API is registered, and the API server reaches it
	ReasonRegistering          = "Registering"          // registered just now: the API server has not said yet that it reaches it
	ReasonDeliveriesAPIOff     = "DeliveriesAPIOff"     // the manager runs without --deliveries-api
	ReasonRightsMissing        = "RightsMissing"        // the manager runs without config/components/deliveries-api
	ReasonServedByAnother      = "ServedByAnother"      // an older dispatcher asks for it, too
	ReasonRegisteredByOthers   = "RegisteredByOthers"   // the APIService is somebody else's, and stays as it is
	ReasonCertificatePending   = "CertificatePending"   // its certificate is not made yet
	ReasonUnreachable          = "Unreachable"          // the API server does not reach the dispatcher's pods
	ReasonCertificateNotServed = "CertificateNotServed" // the pods answer, and not with the manager's certificate
	ReasonTerminating          = "Terminating"          // the namespace of the dispatcher, or of the manager, is being deleted
)

// Reasons of a WebhookReplay, beside Suspended, Pending and DispatcherNotFound.
const (
	ReasonCompleted            = "Completed"            // all was done
	ReasonReplaying            = "Replaying"            // deliveries are made pending again
	ReasonCancelling           = "Cancelling"           // planned deliveries are cancelled
	ReasonCounting             = "Counting"             // what is selected is counted
	ReasonNotSuspended         = "NotSuspended"         // of Suspended=False
	ReasonSubscriptionNotFound = "SubscriptionNotFound" // no subscription has the name, or the labels
	ReasonTooManySubscriptions = "TooManySubscriptions" // the selector selects more than 256
	ReasonStoreUnavailable     = "StoreUnavailable"     // the dispatcher's store takes nothing now
)
