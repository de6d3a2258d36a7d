# The guest that fills memory: 64-bit code without stack and interrupts, position independent. It lies in the memory that
# it writes, so it migrates with it.
#
# Each step has a number n. It picks a page of the vCPU's region by the pattern, adds the first and the last word that
# stand in it to a checksum, and fills it: word j becomes n * (1 + j * G). So a page tells which step wrote it last, all of
# its words follow from that, and the checksum proves that every page that was overwritten had what it should have had.
#
#   rcx  n, the step             rdi  address of the vCPU's control page
#   r15  steps in the whole      r8   steps in a batch
#        region so far           r9   G
#   r10  steps left in the batch r11  address of the doorbell
#   rbp  the way out             rbx  multiplier of the pattern
#   r12  7: seven of eight steps r13  pages in the whole region, less one
#        go to the hot pages; 0  r14  all ones: scatter pages; 0
#   rax  scratch; the clock      xmm0 low half: the checksum
#   rdx, rsi, xmm1  scratch
#
# The control page, words of 64 bits:
#
#   0  address of the region            5  longest time between two readings, nanoseconds
#   1  the clock's offset (layout.py)   6  n at the end of that time
#   2  the host that it holds for       7  how often the clock went back
#   3  the clock when last read         8  hot pages, less one
#   4  n at that reading
#
# After each batch the guest leaves, so that the vCPU's thread can see whether it should stop, and finds the clock in rax
# when it goes on. The ways out are those of the other guest: a write to an address without memory, or a halt.
#
# Assemble:  gcc -c -x assembler program.S -o program.o && objcopy -O binary -j .text program.o program.bin

        .intel_syntax noprefix
        .text
step:
        inc     rcx
        mov     rdx, rcx
        mov     rsi, [rdi + 8 * 8]
        test    rcx, r12
        jnz     place
        inc     r15
        mov     rdx, r15
        mov     rsi, r13
place:
        imul    rdx, rbx
        and     rdx, rsi
        mov     rax, rdx
        shr     rax, 7
        and     rax, r14
        xor     rdx, rax
        imul    rdx, rbx
        and     rdx, rsi
        shl     rdx, 12
        add     rdx, [rdi]
        movq    xmm1, [rdx]
        paddq   xmm0, xmm1
        movq    xmm1, [rdx + 4088]
        paddq   xmm0, xmm1
        mov     rax, rcx
        mov     rsi, rcx
        imul    rsi, r9
fill:
        mov     [rdx], rax
        add     rax, rsi
        add     rdx, 8
        test    edx, 4095
        jnz     fill
        dec     r10
        jnz     step
        mov     r10, r8
        jmp     rbp

clock:
        mov     rsi, [rdi + 8 * 3]
        mov     [rdi + 8 * 3], rax
        mov     [rdi + 8 * 4], rcx
        test    rsi, rsi
        jz      step
        sub     rax, rsi
        jb      back
        cmp     rax, [rdi + 8 * 5]
        jbe     step
        mov     [rdi + 8 * 5], rax
        mov     [rdi + 8 * 6], rcx
        jmp     step
back:
        inc     qword ptr [rdi + 8 * 7]
        jmp     step

        .balign 64, 0xf4
        .org    0x100, 0xf4
doorbell:
        mov     dword ptr [r11], ecx
        jmp     clock

        .org    0x140, 0xf4
halt:
        hlt
        jmp     clock
