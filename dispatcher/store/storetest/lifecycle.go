package storetest

var lifecycleTests = map[string]func(*fixture){}
