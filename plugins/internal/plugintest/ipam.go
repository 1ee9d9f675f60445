// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package plugintest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
)

// ipamMain is another IPAM plugin: it prints `ipam.result` and keeps one line per call in the file $HOLDS.ipam, and in
// $HOLDS.calls, where fakeagent does too. With `ipam.fail` naming its command it fails with code 123.
func ipamMain(getenv func(string) string, stdin io.Reader, stdout io.Writer) int {
	var conf struct {
		IPAM struct {
			Result json.RawMessage `json:"result"`
			Fail   string          `json:"fail"`
		} `json:"ipam"`
	}
	command := getenv("CNI_COMMAND")
	log, err := os.OpenFile(getenv("HOLDS")+".ipam", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(log, command, getenv("CNI_CONTAINERID"), getenv("CNI_IFNAME"))
		_ = log.Close() // the write has told
	}
	if err == nil {
		err = logCall(getenv("HOLDS"), "fakeipam "+command)
	}
	if err == nil {
		err = json.NewDecoder(stdin).Decode(&conf)
	}
	if err != nil || conf.IPAM.Fail == command {
		_, _ = fmt.Fprintf(stdout, `{"code": 123, "msg": "fakeipam was told to fail %s", "details": "%v"}`, command, err)
		return 1
	}
	if command == "ADD" {
		_, _ = stdout.Write(conf.IPAM.Result) // the reader finds it cut
	}
	return 0
}

// logCall adds a line to the calls beside the file of holds.
func logCall(holds, line string) error {
	log, err := os.OpenFile(holds+".calls", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(log, line)
	return errors.Join(err, log.Close())
}
