package doctor

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/clinikapi/eventflow/api/v1alpha1"
)

// state is what an object's status says of it as a whole.
type state struct {
	level           Level // empty if it is as its spec says
	reason, message string
}

// stateOf judges an object as kstatus does: Failed is Stalled, Waiting is what is not Ready or was not seen.
func stateOf(generation, observed int64, conditions []metav1.Condition) state {
	if observed != generation {
		return state{Waiting, unseen, "the manager has not looked at this generation"}
	}
	ready := meta.FindStatusCondition(conditions, v1alpha1.ConditionReady)
	switch {
	case ready == nil:
		return state{Waiting, unseen, "the manager has not said whether it is ready"}
	case ready.Status == metav1.ConditionTrue:
		return state{"", ready.Reason, ready.Message}
	case meta.IsStatusConditionTrue(conditions, v1alpha1.ConditionStalled):
		return state{Failed, ready.Reason, ready.Message}
	default:
		return state{Waiting, ready.Reason, ready.Message}
	}
}

// unseen is the reason of what the manager has not seen; no condition has it.
const unseen = "NotSeen"

// advice says what to do about a reason. OBJECT, NAMESPACE and NAME stand for the object's.
var advice = map[string]string{
	unseen:                                  "kubectl -n eventflow-system logs deployment/eventflow-manager --tail=50",
	v1alpha1.ReasonInvalidSpec:              "kubectl -n NAMESPACE edit OBJECT",
	v1alpha1.ReasonInvalidURL:               "kubectl -n NAMESPACE edit OBJECT    # spec.url",
	v1alpha1.ReasonHTTPNotAllowed:           "kubectl -n NAMESPACE edit OBJECT    # spec.url with https, or the dispatcher's spec.egress.allowHTTP",
	v1alpha1.ReasonUnknownResource:          "kubectl -n NAMESPACE edit OBJECT    # spec.events; eventflow trigger --list-types lists them",
	v1alpha1.ReasonInvalidPattern:           "kubectl -n NAMESPACE edit OBJECT    # spec.events; eventflow trigger --list-types lists them",
	v1alpha1.ReasonInvalidHeader:            "kubectl -n NAMESPACE edit OBJECT    # spec.headers",
	v1alpha1.ReasonInvalidFilter:            "kubectl -n NAMESPACE edit OBJECT    # spec.filter; eventflow test tries it",
	v1alpha1.ReasonInvalidSchedule:          "kubectl -n NAMESPACE edit OBJECT    # spec.schedule; eventflow test tries it",
	v1alpha1.ReasonInvalidLookup:            "kubectl -n NAMESPACE edit OBJECT    # spec.lookup; eventflow test tries it",
	v1alpha1.ReasonInvalidTransform:         "kubectl -n NAMESPACE edit OBJECT    # spec.transform, spec.payload; eventflow test tries it",
	v1alpha1.ReasonInvalidAuth:              "kubectl -n NAMESPACE edit OBJECT    # spec.auth",
	v1alpha1.ReasonInvalidOutcome:           "kubectl -n NAMESPACE edit OBJECT    # spec.outcome; eventflow test tries it",
	v1alpha1.ReasonSecretNotFound:           "kubectl -n NAMESPACE create secret generic SECRET --from-literal=KEY=VALUE    # as the message names it",
	v1alpha1.ReasonSecretKeyMissing:         "kubectl -n NAMESPACE edit secret SECRET    # add the key that the message names",
	v1alpha1.ReasonSecretKeyInvalid:         "kubectl -n NAMESPACE edit secret SECRET    # the value that the message names",
	v1alpha1.ReasonConfigMapNotFound:        "kubectl -n NAMESPACE create configmap CONFIGMAP --from-file=KEY=FILE    # as the message names it",
	v1alpha1.ReasonConfigMapKeyMissing:      "kubectl -n NAMESPACE edit configmap CONFIGMAP    # add the key that the message names",
	v1alpha1.ReasonCertificatesInvalid:      "kubectl -n NAMESPACE edit OBJECT    # what spec.tls names must be certificates in PEM",
	v1alpha1.ReasonClientCertificateInvalid: "kubectl -n NAMESPACE edit secret SECRET    # tls.crt and tls.key, as the message says",
	v1alpha1.ReasonServiceNotFound:          "kubectl -n NAMESPACE get services    # create the one that spec.serviceRef names, or name another",
	v1alpha1.ReasonServicePortMissing:       "kubectl -n NAMESPACE get services    # spec.serviceRef.port is a port of the Service, of TCP",
	v1alpha1.ReasonServiceWithoutAddress:    "kubectl -n NAMESPACE edit OBJECT    # spec.serviceRef: a Service that has a cluster IP; or spec.url",
	v1alpha1.ReasonServiceNotAllowed:        "kubectl -n NAMESPACE edit OBJECT    # spec.serviceRef: a Service with a selector; or spec.url",
	v1alpha1.ReasonHostNotAllowed:           "kubectl -n DISPATCHERNAMESPACE edit webhookdispatcher/DISPATCHER    # add the host to the hosts of a rule in spec.egress.rules; or name another in spec.url",
	v1alpha1.ReasonNotApproved:              "kubectl get webhookdestinations    # create one with the host, that selects NAMESPACE",
	v1alpha1.ReasonDispatcherNotFound:       "kubectl get webhookdispatchers -A    # create the one that spec.dispatcherRef names, or name another",
	v1alpha1.ReasonNamespaceNotSelected:     "kubectl label namespace NAMESPACE KEY=VALUE    # as spec.subscriptions.namespaceSelector of the dispatcher asks",
	v1alpha1.ReasonNamespaceNotGranted:      "kubectl -n NAMESPACE create rolebinding eventflow-manager --clusterrole=eventflow-dispatcher-namespace --serviceaccount=eventflow-system:eventflow-manager",
	v1alpha1.ReasonSecretNotAllowed:         "kubectl -n NAMESPACE label secret SECRET KEY=VALUE    # as the manager's --secret-label asks",
	v1alpha1.ReasonRoutingTableFull:         "kubectl get webhooksubscriptions -A    # remove some, or use a second WebhookDispatcher",
	v1alpha1.ReasonQuotaExceeded:            "kubectl -n NAMESPACE delete webhooksubscription NAME    # or raise spec.quotas of the dispatcher",
	v1alpha1.ReasonStoreImmutable:           "kubectl -n NAMESPACE edit OBJECT    # spec.store as it was; or make another WebhookDispatcher",

	v1alpha1.ReasonPending:               "kubectl -n NAMESPACE describe OBJECT    # it may take a minute",
	v1alpha1.ReasonWaiting:               "kubectl -n NAMESPACE describe OBJECT    # see its condition Accepted",
	v1alpha1.ReasonPulled:                "kubectl -n NAMESPACE describe OBJECT    # the consumer asks for its deliveries; status.deliveries says what waits",
	v1alpha1.ReasonGone:                  "kubectl -n NAMESPACE edit OBJECT    # another spec.url; or delete the subscription, as the endpoint asks",
	v1alpha1.ReasonCircuitOpen:           "kubectl -n NAMESPACE describe OBJECT    # mend the endpoint as status.deliveries.lastFailure says",
	v1alpha1.ReasonLastFailed:            "kubectl -n NAMESPACE describe OBJECT    # status.deliveries.lastFailure; it is attempted again",
	v1alpha1.ReasonNotReady:              "kubectl -n NAMESPACE describe OBJECT    # and the pods below",
	v1alpha1.ReasonNoPodReady:            "kubectl -n NAMESPACE get pods -l app.kubernetes.io/instance=NAME",
	v1alpha1.ReasonProgressing:           "kubectl -n NAMESPACE rollout status deployment/eventflow-dispatcher-NAME",
	v1alpha1.ReasonDispatcherUnavailable: "kubectl get webhookdispatchers -A    # mend the dispatcher first",
	v1alpha1.ReasonDispatcherSuspended:   "kubectl -n DISPATCHERNAMESPACE scale webhookdispatcher/DISPATCHER --replicas=1",
	v1alpha1.ReasonSuspended:             "kubectl -n NAMESPACE patch OBJECT --type=merge -p RESUME",

	v1alpha1.ReasonRegistering:          "kubectl -n NAMESPACE describe OBJECT    # it may take a minute",
	v1alpha1.ReasonDeliveriesAPIOff:     "kubectl apply -k config/components/deliveries-api    # or the chart's deliveriesAPI=true: the manager needs the flag and the rights",
	v1alpha1.ReasonRightsMissing:        "kubectl apply -k config/components/deliveries-api    # or the chart's deliveriesAPI=true",
	v1alpha1.ReasonServedByAnother:      "kubectl -n NAMESPACE patch OBJECT --type=merge -p '{\"spec\":{\"deliveriesAPI\":{\"enabled\":false}}}'    # here, or at the one that serves",
	v1alpha1.ReasonRegisteredByOthers:   "kubectl get apiservice v1alpha1.deliveries.webhooks.clinikapi.com -o yaml    # whose is it? Event Flow leaves it as it is",
	v1alpha1.ReasonCertificatePending:   "kubectl -n eventflow-system logs deployment/eventflow-manager --tail=50",
	v1alpha1.ReasonUnreachable:          "kubectl -n NAMESPACE get endpoints eventflow-deliveries-NAME    # and the NetworkPolicies between the API server and its port 8443",
	v1alpha1.ReasonCertificateNotServed: "kubectl -n NAMESPACE logs deployment/eventflow-dispatcher-NAME    # it takes a renewed certificate over within a minute or two",
	v1alpha1.ReasonTerminating:          "kubectl get namespace NAMESPACE    # it is being deleted",

	v1alpha1.ReasonReplaying:            "kubectl -n NAMESPACE wait --for=condition=Complete OBJECT    # it runs",
	v1alpha1.ReasonCancelling:           "kubectl -n NAMESPACE wait --for=condition=Complete OBJECT    # it runs",
	v1alpha1.ReasonCounting:             "kubectl -n NAMESPACE wait --for=condition=Complete OBJECT    # it runs",
	v1alpha1.ReasonSubscriptionNotFound: "kubectl -n NAMESPACE get webhooksubscriptions --show-labels    # create another WebhookReplay, of one that is there",
	v1alpha1.ReasonTooManySubscriptions: "kubectl -n NAMESPACE delete OBJECT    # and create several, each of fewer subscriptions",
	v1alpha1.ReasonStoreUnavailable:     "kubectl get webhookdispatchers -A    # mend the store first, as StoreReady says",

	v1alpha1.ReasonDatabaseUnreachable: "kubectl -n NAMESPACE logs deployment/eventflow-dispatcher-NAME    # the database, its address, certificate and credentials",
	v1alpha1.ReasonDatabaseTooOld:      "upgrade the server to PostgreSQL 15 or newer",
	v1alpha1.ReasonSchemaNewer:         "kubectl -n eventflow-system set image deployment/eventflow-manager manager=IMAGE    # a newer version",
	v1alpha1.ReasonStoreNewer:          "kubectl -n eventflow-system set image deployment/eventflow-manager manager=IMAGE    # a newer version",
	v1alpha1.ReasonSchemaNotMigrated:   "kubectl -n NAMESPACE logs deployment/eventflow-dispatcher-NAME    # give the user the rights of docs/postgresql.md",
	v1alpha1.ReasonStoreFull:           "kubectl -n NAMESPACE patch OBJECT --type=merge -p '{\"spec\":{\"store\":{\"embedded\":{\"size\":\"SIZE\"}}}}'    # or make space in the database",
	v1alpha1.ReasonStoreReadOnly:       "point the address of the database to its primary",
	v1alpha1.ReasonStoreLocked:         "kubectl -n NAMESPACE get pods    # stop the other pod that uses the claim eventflow-dispatcher-NAME-store",
	v1alpha1.ReasonStoreDamaged:        "restore the volume from a snapshot, as docs/operations.md says",
	v1alpha1.ReasonStoreNotOpen:        "kubectl -n NAMESPACE logs deployment/eventflow-dispatcher-NAME    # the permissions of the volume's files, for one",
}
