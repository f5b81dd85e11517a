package storetest

var queryTests = map[string]func(*fixture){}
