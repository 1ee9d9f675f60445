// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

#include "textflag.h"

// multus_vpc_entry is the same as in entry_linux_amd64.s.
TEXT multus_vpc_entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVD	RSP, R1             // from
	SUB	$16, R1, R2         // to
	MOVD	R2, RSP
	MOVD	0(R1), R3
	ADD	$2, R3              // argc itself, and the 0 after argv
args:
	MOVD.P	8(R1), R4
	MOVD.P	R4, 8(R2)
	SUB	$1, R3
	CBNZ	R3, args
env:
	MOVD.P	8(R1), R4
	CBZ	R4, add
	MOVD.P	R4, 8(R2)
	B	env
add:
	MOVD	$setting<>(SB), R4
	MOVD.P	R4, 8(R2)
	MOVD.P	ZR, 8(R2)
aux:
	LDP.P	16(R1), (R4, R5)
	STP.P	(R4, R5), 16(R2)
	CBNZ	R4, aux
	B	_rt0_arm64_linux(SB)

DATA	setting<>+0(SB)/8, $"GOMAXPRO"
DATA	setting<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL	setting<>(SB), RODATA|NOPTR, $16
