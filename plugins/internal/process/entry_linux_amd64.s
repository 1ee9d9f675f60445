// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: The multus-vpc authors

#include "textflag.h"

// multus_vpc_entry is where the kernel enters a plugin that is linked with -E multus_vpc_entry. It adds GOMAXPROCS=1 to
// the end of the environment, where one that the runtime has set goes before it, and goes on as every Go program does.
// Why: docs/adr/0030.
//
// The stack pointer is at argc, argv…, 0, envp…, 0, auxv…, 0, 0 (System V ABI, AMD64 supplement, 3.4.1). All of it moves
// down by two words, for the ABI wants the stack aligned, and what follows the new variable moves up again by one.
TEXT multus_vpc_entry(SB),NOSPLIT|NOFRAME|TOPFRAME,$0
	MOVQ	SP, SI              // from
	LEAQ	-16(SP), DI         // to
	MOVQ	DI, SP
	MOVQ	0(SI), CX
	ADDQ	$2, CX              // argc itself, and the 0 after argv
args:
	MOVQ	0(SI), AX
	MOVQ	AX, 0(DI)
	ADDQ	$8, SI
	ADDQ	$8, DI
	DECQ	CX
	JNZ	args
env:
	MOVQ	0(SI), AX
	ADDQ	$8, SI
	TESTQ	AX, AX
	JZ	add
	MOVQ	AX, 0(DI)
	ADDQ	$8, DI
	JMP	env
add:
	LEAQ	setting<>(SB), AX
	MOVQ	AX, 0(DI)
	MOVQ	$0, 8(DI)
	ADDQ	$16, DI
aux:
	MOVQ	0(SI), AX
	MOVQ	8(SI), CX
	MOVQ	AX, 0(DI)
	MOVQ	CX, 8(DI)
	ADDQ	$16, SI
	ADDQ	$16, DI
	TESTQ	AX, AX
	JNZ	aux
	JMP	_rt0_amd64_linux(SB)

DATA	setting<>+0(SB)/8, $"GOMAXPRO"
DATA	setting<>+8(SB)/8, $"CS=1\x00\x00\x00\x00"
GLOBL	setting<>(SB), RODATA|NOPTR, $16
