package storetest

var modelTests = map[string]func(*fixture){}
