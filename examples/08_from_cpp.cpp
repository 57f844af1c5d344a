/* From C++: objects that free themselves, errors as exceptions, one plan for two threads.

       build/08_from_cpp [MODEL.safetensors CIFAR-10-FOLDER]
*/
#include <cstdio>
#include <future>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#define PTQ_IMPLEMENTATION
#include "../ptq.h"

namespace
{

/* The library returns a status and fills an error; here that becomes an exception. */
struct error : std::runtime_error {
    ptq_status status;
    explicit error(const ptq_error &e) : std::runtime_error(e.text), status(e.status)
    {
    }
};

/* Calls create(args..., &object, &err), as all of the library's constructors end, and hands the
   object to a pointer that frees it. */
template <class T> using handle = std::unique_ptr<T, void (*)(T *)>;

template <class T, class Create, class... Args>
handle<T> make(void (*release)(T *), Create create, Args... args)
{
    T *object = nullptr;
    ptq_error err;

    if (create(args..., &object, &err))
        throw error(err);
    return handle<T>(object, release);
}

/* A model that is ready to run. Members are freed in reverse order: the plan before its model. */
class classifier
{
  public:
    explicit classifier(const std::string &path)
        : model(make<ptq_model>(ptq_model_free, ptq_model_load, path.c_str(), nullptr)),
          fused(make<ptq_model>(ptq_model_free, fuse, model.get())),
          plan(make<ptq_plan>(ptq_plan_free, ptq_plan_create, fused.get(), nullptr))
    {
    }

    /* Any number of threads may call this at once: what is written to is the session. */
    std::vector<int> classify(const std::vector<uint8_t> &pixels) const
    {
        auto session = make<ptq_session>(ptq_session_free, ptq_session_create, plan.get(), nullptr);
        std::vector<int> result(pixels.size() / ptq_plan_get_info(plan.get())->pixels);
        ptq_error err;

        if (ptq_classify(session.get(), pixels.data(), result.size(), result.data(), &err))
            throw error(err);
        return result;
    }

  private:
    static ptq_status fuse(const ptq_model *from, ptq_model **out, ptq_error *err)
    {
        return ptq_fuse(from, out, nullptr, err);
    }

    handle<ptq_model> model, fused;
    handle<ptq_plan> plan;
};

/* A part of a data set in memory. */
struct images {
    std::vector<uint8_t> pixels;
    std::vector<int> label;

    images(const ptq_dataset &data, std::size_t first, std::size_t count)
        : pixels(count * 32 * 32 * 3), label(count)
    {
        ptq_error err;

        for (std::size_t i = 0; i < count; i++)
            if (data.get(data.user, first + i, &pixels[i * 32 * 32 * 3], &label[i], &err))
                throw error(err);
    }
};

void run(const std::string &path, const char *folder)
{
    const classifier net(path);
    auto file =
        make<ptq_cifar10>(ptq_cifar10_free, ptq_cifar10_open, folder, PTQ_SPLIT_TEST, nullptr);
    const ptq_dataset data = *ptq_cifar10_dataset(file.get());
    const images half[2] = {{data, 0, data.count / 2},
                            {data, data.count / 2, data.count - data.count / 2}};
    auto other = std::async(std::launch::async, [&] { return net.classify(half[1].pixels); });
    const std::vector<int> answer[2] = {net.classify(half[0].pixels), other.get()};
    std::vector<int> right(10), total(10);

    for (int h = 0; h < 2; h++)
        for (std::size_t i = 0; i < answer[h].size(); i++) {
            const std::size_t label = static_cast<std::size_t>(half[h].label[i]);

            right[label] += answer[h][i] == half[h].label[i];
            total[label]++;
        }
    for (std::size_t c = 0; c < 10; c++)
        std::printf("%-11s %4d of %4d\n", data.class_name[c], right[c], total[c]);
}

/* What a failure looks like. */
void fail()
{
    try {
        classifier missing("no-such-model.safetensors");
    } catch (const error &e) {
        std::printf("\n%s: %s\n", ptq_name(PTQ_NAMES_STATUS, e.status), e.what());
    }
}

} // namespace

int main(int argc, char **argv)
{
    try {
        run(argc == 3 ? argv[1] : "build/models/resnet8-shapes10-int8.safetensors",
            argc == 3 ? argv[2] : "build/shapes10-data");
        fail();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
