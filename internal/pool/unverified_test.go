// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

package pool_test

import (
	"flag"
	"os"
	"os/exec"
	"strings"
	"testing"
)

var unverified = flag.String("ec2", "", `what is unverified of EC2, for all tests that do not say: for example "assignOwned: error"`)

// TestEitherWayOfEC2 runs the flows again where EC2 behaves in the other way as far as it is not documented: whether an
// assign of an address that the ENI has already is an error, and whether a refused batch was applied in part.
// https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_AssignPrivateIpAddresses.html
func TestEitherWayOfEC2(t *testing.T) {
	if *unverified != "" {
		return // this is one of those runs
	}
	flows := []string{
		"TestLost", "TestLostReply", "TestLostReplyByCount", "TestOneFamilyLost", "TestChangedBehindOurBack", "TestOrphanIsAdopted",
		"TestLateReadsConfirmNothing", "TestCarriedButNotAssigned", "TestRequestedAddress", "TestRegister", "TestStickyAddressMovesInOrder", "TestStickyAddressIsTakenFromAWorkerThatIsCutOff", "TestStickyPodComesBackToAWorkerThatWasAway", "TestStickyAddressIsGivenBackWhenTheInterfaceGoesAfterIt", "TestStickyAddressIsTakenWithinOneADD", "TestStickyAddressesOfBothFamilies", "TestStickyIsRefused", "TestStickyAddressOfAStrangerIsNeverTaken", "TestManyAtOnce",
		"TestStockThatCameWithTheENINeedsNoCall", "TestReservationsComeAndGo", "TestRestartKeepsHolds", "TestLostLedger", "TestSurplusGoesBack",
		"TestClaimedAddresses", "TestFloatingAddressMoves", "TestHandOver", "TestClaimMovesBetweenENIsOfAWorker", "TestClaimOfAnotherIPAMsAddressMoves", "TestClaimSurvivesAKill", "TestClaimOutlivesBadDaysOfEC2",
		"TestFloatingAddressWaitsForNothingElse", "TestFloatingAddressesOfIPv6MoveTogether", "TestClaimWaitsForTheCallAboutItsAddress", "TestFullENIThatHasTheAddressAlready",
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], "-test.v", "-test.run=^("+strings.Join(flows, "|")+")$", "-ec2=assignOwned: error, mixedBatch: partial").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	for _, f := range flows {
		if !strings.Contains(string(out), "\n--- PASS: "+f+" ") {
			t.Errorf("%s did not pass", f)
		}
	}
}
