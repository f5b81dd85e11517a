package controllers

import "github.com/spf13/pflag"

// AddFlags binds the options to flags, and sets their defaults.
func (o *Options) AddFlags(flags *pflag.FlagSet) {
	flags.StringVar(&o.MetricsAddress, "metrics-bind-address", ":8080", "address of /metrics; 0 serves none")
	flags.StringVar(&o.ProbeAddress, "health-probe-bind-address", ":8081", "address of /healthz and /readyz; 0 serves none")
	flags.BoolVar(&o.LeaderElection, "leader-elect", false, "let several managers run, of which one works")
	flags.StringVar(&o.Namespace, "leader-election-namespace", "", "namespace of the lease; without, that of the pod, or "+DefaultNamespace)
	flags.StringVar(&o.DispatcherImage, "dispatcher-image", "", "image of the dispatchers; without, the manager's own")
	flags.BoolVar(&o.CreateDefaultDispatcher, "create-default-dispatcher", true, "create the dispatcher \"default\" once, if there is none at all")
	flags.StringVar(&o.DefaultDispatcherNamespace, "default-dispatcher-namespace", "", "where that is created; without, "+DefaultNamespace)
}
