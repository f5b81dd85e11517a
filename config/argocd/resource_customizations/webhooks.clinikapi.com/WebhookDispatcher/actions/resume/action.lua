-- One replica. A sync, or an autoscaler, sets more.
obj.spec.replicas = 1
return obj
