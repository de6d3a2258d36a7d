# The guest that every vCPU runs: 64-bit code without stack and interrupts, position independent.
#
# Each iteration makes the next number of a linear congruential generator, writes it into the vCPU's own page and adds
# it to a checksum. All of the guest's state is therefore a function of its start value and of the number of
# iterations, which proof.py computes without running anything.
#
# The checksum lives in an SSE register and the rest in general registers, so that a migration which forgets either
# kind of register cannot go unseen.
#
#   rax  x, the last number              rdi  address of the vCPU's page
#   rbx  multiplier                      r8   iterations in a batch
#   rcx  n, iterations done so far       r9   increment
#   r10  iterations left in this batch   r11  address of the doorbell
#   rbp  the way out: doorbell or halt   xmm0 low half: sum of every x so far (mod 2**64)
#   rdx  scratch                         xmm1 scratch
#
# After each batch the guest leaves, so that the vCPU's thread can see whether it should stop. Every register agrees
# with the page then. There are two ways out, since a guest in user mode may not halt:
#
#   doorbell  a write to an address that has no memory behind it, which ends KVM_RUN as memory-mapped I/O. It needs no
#             privilege, so the guest can run in user mode, which every kind of KVM executes on the processor itself,
#             also one that emulates a guest kernel.
#   halt      ends an emulator's run.
#
# Assemble:  gcc -c -x assembler program.S -o program.o && objcopy -O binary -j .text program.o program.bin

        .intel_syntax noprefix
        .text
iterate:
        imul    rax, rbx
        add     rax, r9
        inc     rcx
        movq    xmm1, rax
        paddq   xmm0, xmm1
        mov     edx, ecx
        and     edx, 511
        mov     qword ptr [rdi + rdx * 8], rax
        dec     r10
        jnz     iterate
        mov     r10, r8
        jmp     rbp

        .balign 64, 0xf4
doorbell:
        mov     dword ptr [r11], ecx
        jmp     iterate

        .balign 64, 0xf4
halt:
        hlt
        jmp     iterate
