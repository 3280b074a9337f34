// The few operations of librados that its C interface lacks or does only with copies: compound reads whose memory is handed
// on, and copies from object to object by the OSDs. Called by sys.rs alone, which says who owns what.
//
// Every function here returns 0 and calls `done` once, later, on a thread of librados; or returns a negative errno and never
// calls it. No exception leaves.

#include <rados/librados.h>
#include <rados/librados.hpp>

#include <cerrno>
#include <cstring>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

using librados::IoCtx;
using librados::ObjectReadOperation;
using librados::ObjectWriteOperation;

extern "C" {

struct tierdav_part {
    const char *data;
    size_t len;
};

struct tierdav_reply;
typedef void (*tierdav_done)(void *arg, int result, tierdav_reply *reply);
typedef void (*tierdav_name)(void *arg, const char *name, size_t len);
typedef void (*tierdav_give_back)(void *owner);

}

namespace {

// Memory of the caller that librados reads from without a copy. It goes back when nothing but this refers to it: an operation
// that timed out may still sit in a messenger's queue, long after its completion was called.
struct Loan {
    std::vector<ceph::bufferptr> parts;
    void *owner;
    tierdav_give_back give_back;

    Loan(void *owner, tierdav_give_back give_back) : owner(owner), give_back(give_back) {}
    Loan(const Loan &) = delete;
    Loan &operator=(const Loan &) = delete;
    // Only once nobody else refers to the parts.
    ~Loan() { give_back(owner); }

    // A reference is only ever made from another one: a part whose only one is here stays so.
    bool is_over() const {
        for (const auto &part : parts) {
            if (part.raw_nref() > 1) {
                return false;
            }
        }
        return true;
    }
};

// Loans that were not over when their operation was. Never destroyed: librados' threads may outlive main.
struct Overdue {
    std::mutex lock;
    std::list<Loan *> loans;
};

Overdue &overdue() {
    static Overdue *const all = new Overdue();
    return *all;
}

// Ends a loan now, or later.
void settle(Loan *loan) noexcept {
    if (loan->is_over()) {
        delete loan;
        return;
    }
    try {
        std::lock_guard<std::mutex> hold(overdue().lock);
        overdue().loans.push_back(loan);
    } catch (const std::exception &) {
        // No memory to remember it: never given back is safe.
    }
}

// Ends those that are over by now.
void settle_overdue() noexcept {
    try {
        std::list<Loan *> over;
        {
            std::lock_guard<std::mutex> hold(overdue().lock);
            auto &loans = overdue().loans;
            for (auto it = loans.begin(); it != loans.end();) {
                auto next = std::next(it);
                if ((*it)->is_over()) {
                    over.splice(over.end(), loans, it);
                }
                it = next;
            }
        }
        for (Loan *loan : over) {
            delete loan;
        }
    } catch (const std::exception &) {
        // The next one tries again.
    }
}

}

extern "C" {

struct tierdav_reply {
    ceph::bufferlist data;
    ceph::bufferlist attr;
    int data_result = 0;
    int attr_result = 0;
    Loan *loan = nullptr;
    tierdav_done done;
    void *arg;
};

}

namespace {

void finished(rados_completion_t completion, void *raw) {
    auto *reply = static_cast<tierdav_reply *>(raw);
    Loan *loan = reply->loan;
    // The reply is the caller's from here on.
    reply->done(reply->arg, rados_aio_get_return_value(completion), reply);
    if (loan != nullptr) {
        settle(loan);
        settle_overdue();
    }
}

// Submits `submit(io, completion, reply)`.
template <typename F>
int run(rados_ioctx_t raw, tierdav_done done, void *arg, F submit) noexcept {
    try {
        auto reply = std::make_unique<tierdav_reply>();
        reply->done = done;
        reply->arg = arg;
        IoCtx io;
        IoCtx::from_rados_ioctx_t(raw, io);
        librados::AioCompletion *completion =
            librados::Rados::aio_create_completion(reply.get(), finished);
        int result = submit(io, completion, *reply);
        completion->release();
        if (result < 0) {
            return result;
        }
        reply.release();
        return 0;
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    } catch (const std::exception &) {
        return -EIO;
    }
}

// A full pool answers at once rather than when it has room again.
constexpr int WRITE_FLAGS = librados::OPERATION_FULL_TRY;

// What an object is to its OSD. BlueStore keeps one checksum for each 64 KiB of such an object rather than for each 4 KiB
// (_choose_write_options), which takes a sixteenth of the memory and costs it less to write and to read whole. Small objects,
// and reads of 4 KiB, cost it more with a hint than without.
constexpr uint32_t WRITTEN_ONCE =
    librados::ALLOC_HINT_FLAG_SEQUENTIAL_WRITE | librados::ALLOC_HINT_FLAG_SEQUENTIAL_READ |
    librados::ALLOC_HINT_FLAG_APPEND_ONLY | librados::ALLOC_HINT_FLAG_IMMUTABLE;
constexpr unsigned HINTED_BYTES_MIN = 1 << 20;

}

extern "C" {

// Without an `attr` none is read, and the bytes come alone: then their checksum is known from the messenger's look at them.
int tierdav_read(rados_ioctx_t io, const char *oid, uint64_t offset, size_t len, const char *attr,
                 tierdav_done done, void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &reply) {
        ObjectReadOperation op;
        if (len > 0) {
            op.read(offset, len, &reply.data, &reply.data_result);
        }
        if (attr != nullptr) {
            op.getxattr(attr, &reply.attr, &reply.attr_result);
        }
        return ctx.aio_operate(oid, c, &op, nullptr);
    });
}

// With an `owner` the parts are lent: `give_back(owner)` is called once, whatever becomes of the operation, when nothing refers
// to them any more. Without, they are copied before this returns. With a `sum` that becomes the crc32c of the bytes, which is put
// into the attribute's value from byte `sum_at` on, too: taken from the list of buffers, which remembers it, so that the messenger
// need not go through the bytes once more for its own.
int tierdav_write(rados_ioctx_t io, const char *oid, const tierdav_part *parts, size_t count,
                  const char *attr, const char *value, size_t value_len, size_t sum_at,
                  uint32_t *sum, const char *mark, void *owner, tierdav_give_back give_back,
                  tierdav_done done, void *arg) {
    Loan *loan = nullptr;
    int result = run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &reply) {
        ceph::bufferlist data;
        if (owner != nullptr) {
            loan = new Loan(owner, give_back);
            loan->parts.reserve(count);
            for (size_t i = 0; i < count; i++) {
                char *from = const_cast<char *>(parts[i].data);
                loan->parts.emplace_back(ceph::buffer::create_static(parts[i].len, from));
                data.push_back(loan->parts.back());
            }
            reply.loan = loan;
        } else {
            size_t total = 0;
            for (size_t i = 0; i < count; i++) {
                total += parts[i].len;
            }
            if (total > 0) {
                ceph::bufferptr whole(ceph::buffer::create(total));
                char *to = whole.c_str();
                for (size_t i = 0; i < count; i++) {
                    memcpy(to, parts[i].data, parts[i].len);
                    to += parts[i].len;
                }
                data.push_back(std::move(whole));
            }
        }
        std::string filled(value, value_len);
        if (sum != nullptr) {
            *sum = ~data.crc32c(~0u);
            for (size_t i = 0; i < sizeof(*sum); i++) {
                filled.at(sum_at + i) = static_cast<char>(*sum >> (8 * i));
            }
        }
        ceph::bufferlist info;
        info.append(filled);
        ObjectWriteOperation op;
        if (data.length() >= HINTED_BYTES_MIN) {
            op.set_alloc_hint2(data.length(), data.length(), WRITTEN_ONCE);
        }
        op.write_full(data);
        op.setxattr(attr, info);
        if (mark != nullptr) {
            ceph::bufferlist one;
            one.append("1", 1);
            op.setxattr(mark, one);
        }
        return ctx.aio_operate(oid, c, &op, WRITE_FLAGS);
    });
    if (result < 0) {
        if (loan != nullptr) {
            settle(loan);
        } else if (owner != nullptr) {
            give_back(owner);
        }
    }
    return result;
}

// Gives back what was lent to operations that timed out and has become free since.
void tierdav_settle_loans() { settle_overdue(); }

int tierdav_copy(rados_ioctx_t to, const char *to_oid, rados_ioctx_t from, const char *from_oid,
                 tierdav_done done, void *arg) {
    return run(to, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &) {
        IoCtx source;
        IoCtx::from_rados_ioctx_t(from, source);
        ObjectWriteOperation op;
        op.copy_from(from_oid, source, 0, 0);
        return ctx.aio_operate(to_oid, c, &op, WRITE_FLAGS);
    });
}

int tierdav_set_mark(rados_ioctx_t io, const char *oid, const char *mark, tierdav_done done,
                     void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &) {
        ceph::bufferlist one;
        one.append("1", 1);
        ObjectWriteOperation op;
        op.assert_exists();
        op.setxattr(mark, one);
        return ctx.aio_operate(oid, c, &op, WRITE_FLAGS);
    });
}

int tierdav_unset_mark(rados_ioctx_t io, const char *oid, const char *mark, tierdav_done done,
                       void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &) {
        ObjectWriteOperation op;
        op.assert_exists();
        op.rmxattr(mark);
        return ctx.aio_operate(oid, c, &op, WRITE_FLAGS);
    });
}

// The attribute `attr` in the reply's `attr`, and one byte in its `data` if the object carries `mark`.
int tierdav_attributes(rados_ioctx_t io, const char *oid, const char *attr, const char *mark,
                       tierdav_done done, void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &reply) {
        ObjectReadOperation op;
        op.getxattr(attr, &reply.attr, &reply.attr_result);
        op.getxattr(mark, &reply.data, &reply.data_result);
        op.set_op_flags2(librados::OP_FAILOK);
        return ctx.aio_operate(oid, c, &op, nullptr);
    });
}

int tierdav_remove(rados_ioctx_t io, const char *oid, tierdav_done done, void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &) {
        ObjectWriteOperation op;
        op.remove();
        return ctx.aio_operate(oid, c, &op, WRITE_FLAGS);
    });
}

// Names of all objects of the context's namespace, one call of `each` for each; blocks.
int tierdav_list(rados_ioctx_t io, tierdav_name each, void *arg) {
    try {
        IoCtx ctx;
        IoCtx::from_rados_ioctx_t(io, ctx);
        for (auto it = ctx.nobjects_begin(); it != ctx.nobjects_end(); ++it) {
            const std::string &name = it->get_oid();
            each(arg, name.data(), name.size());
        }
        return 0;
    } catch (const std::bad_alloc &) {
        return -ENOMEM;
    } catch (const std::system_error &e) {
        int code = e.code().value();
        return code > 0 ? -code : -EIO;
    } catch (const std::exception &) {
        return -EIO;
    }
}

// One stretch of memory with the reply's bytes, valid as long as the reply; nullptr without memory for it.
const char *tierdav_reply_data(tierdav_reply *reply, size_t *len) {
    try {
        *len = reply->data.length();
        return *len == 0 ? "" : reply->data.c_str();
    } catch (const std::exception &) {
        return nullptr;
    }
}

const char *tierdav_reply_attr(tierdav_reply *reply, size_t *len) {
    try {
        *len = reply->attr.length();
        return *len == 0 ? "" : reply->attr.c_str();
    } catch (const std::exception &) {
        return nullptr;
    }
}

// The crc32c of the reply's bytes: the list of buffers remembers the one that the messenger took, if it was of the same bytes.
uint32_t tierdav_reply_sum(const tierdav_reply *reply) { return ~reply->data.crc32c(~0u); }

void tierdav_reply_free(tierdav_reply *reply) { delete reply; }

}
