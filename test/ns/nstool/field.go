package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// field prints values of a JSON text, a line each: names and numbers lead to it, "#" counts a list
// and "*" means every element. What is not there prints nothing.
func field(_ context.Context, args []string) error {
	if err := atLeast(1, args); err != nil {
		return err
	}
	var v any
	d := json.NewDecoder(os.Stdin)
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return err
	}
	for _, path := range args {
		walk(v, strings.Split(path, "."))
	}
	return nil
}

func walk(v any, path []string) {
	if len(path) == 0 {
		show(v)
		return
	}
	switch v := v.(type) {
	case map[string]any:
		if inner, ok := v[path[0]]; ok {
			walk(inner, path[1:])
		}
	case []any:
		walkList(v, path)
	}
}

func walkList(list []any, path []string) {
	switch path[0] {
	case "#":
		fmt.Println(len(list))
	case "*":
		for _, inner := range list {
			walk(inner, path[1:])
		}
	default:
		if i, err := strconv.Atoi(path[0]); err == nil && i >= 0 && i < len(list) {
			walk(list[i], path[1:])
		}
	}
}

func show(v any) {
	switch v := v.(type) {
	case nil:
	case []any, map[string]any:
		text, _ := json.Marshal(v) // it was decoded from JSON
		fmt.Println(string(text))
	default:
		fmt.Println(v)
	}
}
