package controllers

import "github.com/spf13/pflag"

// AddFlags binds the options to flags, and sets their defaults.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 serves none")
	flags.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 serves none")
	flags.BoolVar(&o.LeaderElection, "leader-elect", false, "let several managers run, of which one works")
	flags.StringVar(&o.Namespace, "namespace", "", "namespace that the manager is installed in; without, that of the pod, or "+DefaultNamespace)
	flags.StringVar(&o.Namespace, "leader-election-namespace", "", "the same")
	_ = flags.MarkDeprecated("leader-election-namespace", "use --namespace")
	flags.StringSliceVar(&o.Namespaces, "namespaces", nil, "namespaces whose subscriptions are worked on, beside the manager's own; without, those of all namespaces")
	flags.StringVar(&o.DispatcherImage, "dispatcher-image", "", "image of the dispatchers; without, the manager's own")
	flags.BoolVar(&o.DeliveriesAPI, "deliveries-api", false, "let a dispatcher whose spec.deliveriesAPI asks for it serve deliveries as Kubernetes resources; needs the rights of config/components/deliveries-api")
	flags.StringVar(&o.SecretLabel, "secret-label", "", "label, key=value, that a Secret must have for subscriptions to name it; without, they may name any of their namespace")
	flags.BoolVar(&o.CreateDefaultDispatcher, "create-default-dispatcher", true, "create the dispatcher \"default\" once, if there is none at all")
	flags.StringVar(&o.DefaultDispatcherNamespace, "default-dispatcher-namespace", "", "where that is created; without, the manager's namespace")
}
