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
#include <memory>
#include <new>
#include <string>

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

struct tierdav_reply {
    ceph::bufferlist data;
    ceph::bufferlist attr;
    int data_result = 0;
    int attr_result = 0;
    tierdav_done done;
    void *arg;
};

}

namespace {

void finished(rados_completion_t completion, void *raw) {
    auto *reply = static_cast<tierdav_reply *>(raw);
    reply->done(reply->arg, rados_aio_get_return_value(completion), reply);
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

}

extern "C" {

int tierdav_read(rados_ioctx_t io, const char *oid, uint64_t offset, size_t len, const char *attr,
                 tierdav_done done, void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &reply) {
        ObjectReadOperation op;
        if (len > 0) {
            op.read(offset, len, &reply.data, &reply.data_result);
        }
        op.getxattr(attr, &reply.attr, &reply.attr_result);
        return ctx.aio_operate(oid, c, &op, nullptr);
    });
}

int tierdav_write(rados_ioctx_t io, const char *oid, const tierdav_part *parts, size_t count,
                  const char *attr, const char *value, size_t value_len, const char *mark,
                  tierdav_done done, void *arg) {
    return run(io, done, arg, [&](IoCtx &ctx, librados::AioCompletion *c, tierdav_reply &) {
        size_t total = 0;
        for (size_t i = 0; i < count; i++) {
            total += parts[i].len;
        }
        ceph::bufferlist data;
        if (total > 0) {
            ceph::bufferptr whole(ceph::buffer::create_page_aligned(total));
            char *to = whole.c_str();
            for (size_t i = 0; i < count; i++) {
                memcpy(to, parts[i].data, parts[i].len);
                to += parts[i].len;
            }
            data.push_back(std::move(whole));
        }
        ceph::bufferlist info;
        info.append(value, value_len);
        ObjectWriteOperation op;
        op.write_full(data);
        op.setxattr(attr, info);
        if (mark != nullptr) {
            ceph::bufferlist one;
            one.append("1", 1);
            op.setxattr(mark, one);
        }
        return ctx.aio_operate(oid, c, &op, WRITE_FLAGS);
    });
}

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

void tierdav_reply_free(tierdav_reply *reply) { delete reply; }

}
