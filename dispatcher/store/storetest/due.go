package storetest

var dueTests = map[string]func(*fixture){}
